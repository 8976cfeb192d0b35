"""Where pictures lie: files on this machine, objects in stores, standard input and output.

The only module that knows fsspec (extra `remote`), whose drivers reach S3, Google Cloud Storage,
Azure, web servers and more. A place is a `Path`, a `Remote` or a `Stream`; what concerns a `Path`
is done by `dvmsr.utils.paths` and `dvmsr.utils.atomic`, here as elsewhere.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import re
import select
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.utils import atomic, paths, signals

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_ADDRESS = re.compile(r"\[[0-9a-f:.]*\]", re.IGNORECASE)
"""Of IPv6, in a URL."""
_WEB = ("http", "https")
_NO_STORES = (
    *("asyncwrapper", "blockcache", "cached", "dask", "data", "dir", "filecache", "generic"),
    *("libarchive", "reference", "simplecache", "tar", "zip"),
)
"""Drivers of fsspec for what lies in another place, which chains of URLs alone would name."""
STREAM = "-"
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
        return self.scheme in _WEB

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
            place = PurePosixPath(_after(name, path))
            yield self / place, place

    def matching(self, pattern: str) -> list[Remote]:
        """The objects and folders below this one that a pattern matches, in order."""
        with self._asked("listed") as (store, path):
            names = sorted(store.glob(f"{path.rstrip('/')}/{pattern}"))
        return [self / _after(name, path) for name in names]

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


@dataclass(frozen=True)
class Stream:
    """Standard input or, for a result, standard output."""

    suffix: str = ""
    """Of a result, with its dot, if a format was asked for."""

    name = STREAM

    def __str__(self) -> str:
        return STREAM

    def is_dir(self) -> bool:
        return False

    def exists(self) -> bool:
        return False

    def state(self) -> dict[str, int | str]:
        return {}

    def download(self, copy: Path) -> None:
        """Read to the end, into a file here.

        Raises:
            UsageError: if it is closed, or a terminal.
            DvmsrError: if that fails.
        """
        if sys.stdin is None:
            raise UsageError("standard input is closed; name an image or send one there")
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal; name an image or send one there")
        source: Any = sys.stdin.buffer
        try:
            with copy.open("wb") as file:
                while data := _more_of(source):
                    file.write(data)
        except OSError as error:
            raise DvmsrError(
                f"standard input cannot be kept ({error.strerror}); make room, or set TMPDIR to a "
                "folder that has"
            ) from None

    def check_target(self, overwrite: bool) -> None:
        """
        Raises:
            UsageError: if it is closed, or a terminal.
        """
        if sys.stdout is None:
            raise UsageError("standard output is closed; name a file with -o or send it to one")
        if sys.stdout.isatty():
            raise UsageError("standard output is a terminal; name a file with -o or send it to one")

    def upload(self, copy: Path, overwrite: bool) -> None:
        """Write the content of a file.

        Raises:
            DvmsrError: if that fails.
        """
        try:
            with copy.open("rb") as data:
                shutil.copyfileobj(data, sys.stdout.buffer)
            sys.stdout.flush()
        except OSError as error:
            # It is flushed again at exit.
            if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
            raise DvmsrError(
                f"standard output takes no more ({error.strerror}); send it to what reads it to "
                "its end, or name a file with -o"
            ) from None


Stored = Path | Remote
Place = Stored | Stream


def place(name: str) -> Place:
    """What a user's name or URL stands for; `file://` is a file here, `-` a stream.

    Raises:
        UsageError: for a name that leads nowhere.
    """
    if name == STREAM:
        return Stream()
    found = _URL.match(name)
    if "\0" in (unquote(name) if found else name):
        shown = name.replace("\0", "%00")
        raise UsageError(f"{shown} holds a character of code 0, which no name has; correct it")
    if not found:
        return Path(name)
    scheme, rest = found[1].lower(), name[found.end() :]
    if scheme in ("file", "local"):
        host, path = _split(name)
        if host not in ("", "localhost"):
            raise UsageError(f"{name} names the machine {host}; write file:///path")
        if not path:
            raise UsageError(f"{name} names no file; write file:///path")
        return Path(url2pathname(path))
    if "::" in _ADDRESS.sub("", name):
        raise UsageError(f"{name} is a chain of URLs; name the store alone")
    if scheme in _NO_STORES:
        raise UsageError(f"{name} names no store; name the place where the picture lies")
    if not rest.strip("/") or (scheme in _WEB and not _split(name)[0]):
        raise UsageError(f"{name} names nothing in a store; write more of it")
    return Remote(f"{scheme}://{rest}")


def _split(url: str) -> tuple[str, str]:
    """Machine and path of a URL."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url} is no valid URL ({error}); correct it") from None
    return parts.netloc, parts.path


def stored(name: str) -> Stored:
    """`place`, where a stream will not do.

    Raises:
        UsageError: for a stream, too.
    """
    found = place(name)
    if not isinstance(found, Stored):
        raise UsageError(f"{name} is a stream; name a file, or ./{name} for one of that name")
    return found


def exists(place: Place) -> bool:
    """Whether there is something of that name."""
    return paths.exists(place) if isinstance(place, Path) else place.exists()


def is_dir(place: Place) -> bool:
    """Whether it is a folder."""
    return paths.is_dir(place) if isinstance(place, Path) else place.is_dir()


def check_target(place: Place, overwrite: bool) -> None:
    """Whether a result may be written here; see `atomic.check_target` and `Remote.check_target`."""
    if isinstance(place, Path):
        atomic.check_target(place, overwrite)
    else:
        place.check_target(overwrite)


def identity(place: Place) -> str:
    """Equal for two names of one place."""
    return os.path.realpath(place) if isinstance(place, Path) else str(place)


def state(place: Place) -> dict[str, int | str]:
    """By what a changed file is known: `bytes` and `modified` (nanoseconds; for an object see
    `Remote.state`); nothing if there is none."""
    if not isinstance(place, Path):
        return place.state()
    try:
        found = place.stat()
    except OSError:
        return {}
    return {"bytes": found.st_size, "modified": found.st_mtime_ns}


def is_pattern(name: str) -> bool:
    """Whether it stands for others, and not for something of that very name.

    Raises:
        UsageError: if it has a pattern in place of a bucket, which no store can be asked about.
    """
    found = place(name)
    if not glob.has_magic(name) or (isinstance(found, Remote) and found.is_page()):
        return False
    if isinstance(found, Remote) and glob.has_magic(name.split("/")[2]):
        raise UsageError(f"{name} has a pattern in place of a bucket; name one")
    return not exists(found)


def matches(pattern: str) -> list[tuple[Stored, PurePath]]:
    """The files and folders that a pattern stands for, in order, without what is hidden; each with
    its path from the folder where the pattern begins, or nothing where that would lead out of it.
    """
    found = place(pattern)
    parts = found.parts if isinstance(found, Path) else str(found).split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    if isinstance(found, Path):
        names = sorted(glob.glob(str(found), recursive=True))  # noqa: PTH207
        return [(path, _inside(PurePath(*path.parts[first:]))) for path in map(Path, names)]
    base = Remote("/".join(parts[:first]))
    return [
        (one, PurePosixPath(_after(one.url, base.url)))
        for one in base.matching("/".join(parts[first:]))
        if "/." not in one.url
    ]


def _more_of(source: Any) -> bytes:
    """What can be read next; nothing at the end."""
    try:
        signals.wait(partial(_has_more, source))
        return bytes(source.read1())
    except OSError as error:
        raise DvmsrError(
            f"standard input cannot be read ({error.strerror}); send an image there, or name one"
        ) from None


def _has_more(source: Any, seconds: float) -> bool:
    """Whether something can be read, or the end is there, after so many seconds at most."""
    try:
        return bool(select.select([source], [], [], seconds)[0])
    except io.UnsupportedOperation:  # it is no stream of the system's
        return True


def _inside(below: PurePath) -> PurePath:
    return PurePath() if ".." in below.parts else below


def _after(name: str, folder: str) -> str:
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
