"""Objects in stores, by their URLs.

The only module that knows fsspec (extra `remote`), whose drivers reach S3, Google Cloud Storage,
Azure, web servers and more.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError

WEB = ("http", "https")
_STAMPS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created")
"""By what drivers tell that an object has changed, the best first."""
_INNER = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)
"""What a driver raises that was not meant to fail; its words tell a user nothing."""


@dataclass(frozen=True)
class Remote:
    """An object in a store, or a folder of them, by its URL; has what planning asks of a `Path`.

    All methods raise `MissingComponentError` if the driver is missing, `UsageError` if there is
    no such object and `DvmsrError` if the store cannot be used.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, below: str | PurePath) -> Remote:
        name = below if isinstance(below, str) else below.as_posix()
        return self if name == "." else Remote(f"{self.url.rstrip('/')}/{name}")

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """Its last part, on the web without a query."""
        path = unquote(urlsplit(self.url).path) if self.is_page() else self.url.partition("://")[2]
        return PurePosixPath(path).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Remote:
        return Remote(self.url.rstrip("/").rpartition("/")[0])

    def is_page(self) -> bool:
        """Whether it is on the web, where things can only be read, by their whole names."""
        return self.scheme in WEB

    def is_dir(self) -> bool:
        return not self.is_page() and (
            self.url.endswith("/") or self._info().get("type") == "directory"
        )

    def exists(self) -> bool:
        return bool(self._info())

    def state(self) -> dict[str, int | str]:
        """By what a changed object is known: `bytes`, and as `modified` its ETag or time, of these
        what the store tells; nothing if there is none."""
        info = self._info()
        stamp = next((info[name] for name in _STAMPS if info.get(name)), None)
        size = info.get("size")
        return {
            **({} if size is None else {"bytes": int(size)}),
            **({} if stamp is None else {"modified": str(stamp)}),
        }

    def _info(self) -> dict[str, Any]:
        """What the store tells of it; nothing if there is none."""
        with self._asked("looked at") as (store, path):
            try:
                info: dict[str, Any] = store.info(path)
            except FileNotFoundError:
                return {}
        return info

    def below(self) -> Iterator[tuple[Remote, PurePosixPath]]:
        """All objects in this folder and below, with their paths from here, in order."""
        with self._asked("listed") as (store, path):
            names = sorted(store.find(path))
        for name in names:
            place = PurePosixPath(rest_of(name, path))
            yield self / place, place

    def matching(self, pattern: str) -> list[Remote]:
        """The objects and folders below this one that a pattern matches, in order."""
        with self._asked("listed") as (store, path):
            names = sorted(store.glob(f"{path.rstrip('/')}/{pattern}"))
        return [self / rest_of(name, path) for name in names]

    def download(self, copy: Path) -> None:
        """Copy to a file here."""
        with self._asked("read") as (store, path):
            store.get_file(path, str(copy))

    def check_target(self, overwrite: bool) -> None:
        """Whether an object may be made here.

        Raises:
            UsageError: if there is one that may not be overwritten.
        """
        if not overwrite and self.exists():
            raise UsageError(f"{self} exists; allow that with --overwrite or choose another name")

    def check_folder(self) -> None:
        """Whether objects may be made in this folder, as far as that shows beforehand.

        Raises:
            UsageError: if it is on the web, its bucket does not exist, or its driver empties an
                object that is to be replaced before the new one is whole.
        """
        if self.is_page():
            raise UsageError(f"{self.scheme}:// is for reading; name a place for results with -o")
        bucket = Remote(f"{self.scheme}://{self.url.partition('://')[2].split('/')[0]}")
        with bucket._asked("looked at") as (store, path):
            if _writes_in_place(store):
                raise UsageError(
                    f"{self.scheme}:// shows results before they are whole; write to a folder here "
                    "or, on HDFS, to webhdfs://"
                )
            try:
                there = store.exists(path)
            except PermissionError:  # who may write need not be allowed to look
                return
        if not there:
            raise UsageError(f"{bucket} does not exist; create it or choose another with -o")

    def upload(self, copy: Path, overwrite: bool) -> None:
        """Make the object from a file, entirely or not at all.

        Another program's object is not replaced without `overwrite`, but for the moment between
        looking and writing.

        Raises:
            UsageError: if it exists and may not be overwritten.
        """
        with self._asked("written") as (store, path):
            store.invalidate_cache(store._parent(path))
            self.check_target(overwrite)
            out = store.open(path, "wb", autocommit=False)
            if not hasattr(out, "commit"):
                raise DvmsrError(f"{self} would show before it is whole; write to a folder here")
            try:
                with copy.open("rb") as data:
                    shutil.copyfileobj(data, out, store.blocksize)
                out.close()
                out.commit()
            except BaseException:
                with suppress(Exception):
                    out.discard()
                with suppress(Exception):
                    out.closed = True  # or the end of the object would write it
                raise

    @contextmanager
    def _asked(self, done: str) -> Iterator[tuple[Any, str]]:
        """The driver and its name for this; what it raises in the block becomes a sentence.

        Drivers raise the exceptions of whatever they are made of, so any is taken.
        """
        try:
            yield _driver(self)
        except DvmsrError:
            raise
        except FileNotFoundError:
            raise UsageError(f"{self} does not exist; check the name") from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DvmsrError(
                    f"{self} has no room for its copy here; make some, or set TMPDIR to a folder "
                    "that has"
                ) from None
            kind = type(error).__name__
            reason = " ".join(str(error).split())[:300].rstrip(".") or kind
            if isinstance(error, _INNER):
                reason = f"{kind} in its driver"
            raise DvmsrError(
                f"{self} cannot be {done} ({reason}); check its name, your credentials and the "
                "network"
            ) from None


def rest_of(name: str, folder: str) -> str:
    """Of the name of what is in a folder."""
    return name[len(folder.rstrip("/")) :].strip("/")


def _driver(remote: Remote) -> tuple[Any, str]:
    """fsspec's file system for a URL, and what it calls the object."""
    scheme = remote.scheme
    try:
        import fsspec
        from fsspec.registry import known_implementations
    except ModuleNotFoundError:
        raise MissingComponentError(
            f"{scheme}:// needs fsspec: pip install 'dvmsr[remote]'"
        ) from None
    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError:
        raise UsageError(
            f"{remote} has an unknown scheme; name a file, or a URL such as s3:// or gs://"
        ) from None
    except ImportError as error:
        package = known_implementations[scheme]["class"].split(".")[0]
        if package == "fsspec":
            package = getattr(error.__cause__, "name", None) or scheme
        raise MissingComponentError(f"{scheme}:// needs {package}: pip install {package}") from None
    store, path = fsspec.core.url_to_fs(remote.url)
    return store, path


def _writes_in_place(store: Any) -> bool:
    """Whether a driver opens what is to be written under its own name, as those of Arrow do."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    return isinstance(store, ArrowFSWrapper)
