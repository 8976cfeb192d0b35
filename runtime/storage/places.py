"""Where pictures lie: files on this machine, objects in stores, standard input and output.

A place is a `Path`, a `Remote` or a `Stream`; what concerns a `Path` is done by `dvmsr.utils.paths`
and `dvmsr.utils.atomic`, here as elsewhere.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from dvmsr.errors import UsageError
from dvmsr.runtime.storage.remote import WEB, Remote, rest_of
from dvmsr.runtime.storage.stream import STREAM, Stream
from dvmsr.utils import atomic, paths

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_ADDRESS = re.compile(r"\[[0-9a-f:.]*\]", re.IGNORECASE)
"""Of IPv6, in a URL."""
_NO_STORES = (
    *("asyncwrapper", "blockcache", "cached", "dask", "data", "dir", "filecache", "generic"),
    *("libarchive", "reference", "simplecache", "tar", "zip"),
)
"""Drivers of fsspec for what lies in another place, which chains of URLs alone would name."""

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
    if not rest.strip("/") or (scheme in WEB and not _split(name)[0]):
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
        (one, PurePosixPath(rest_of(one.url, base.url)))
        for one in base.matching("/".join(parts[first:]))
        if "/." not in one.url
    ]


def _inside(below: PurePath) -> PurePath:
    return PurePath() if ".." in below.parts else below
