"""The user's cache: what can be made or fetched again."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvmsr.errors import DvmsrError
from dvmsr.utils import atomic

WEIGHTS = "weights"
"""The folder of weights and of ONNX files that hold them."""
_ELSEWHERE = "set XDG_CACHE_HOME to another place"


def folder(name: str) -> Path:
    """Where what is kept under that name lies; it need not exist.

    Raises:
        DvmsrError: if this user has no home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():
        return Path(base) / "dvmsr" / name
    try:
        return Path.home() / ".cache" / "dvmsr" / name
    except RuntimeError:
        raise DvmsrError(
            "this user has no home folder for what is kept; set XDG_CACHE_HOME to a folder"
        ) from None


def holds(path: Path, sha256: str) -> bool:
    """Whether there is a file of that content, which can be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """A block that does nothing but write below a folder of the cache.

    Raises:
        DvmsrError: if it cannot: an `OSError` of the block is turned into one.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = f"make room or {_ELSEWHERE}" if full else _ELSEWHERE
        raise DvmsrError(f"{place} cannot be written ({error.strerror}); {remedy}") from None


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache, whole, in place of one that may be there.

    Raises:
        DvmsrError: if it cannot be written.
    """
    try:
        atomic.write_atomically(path, data, overwrite=True)
    except DvmsrError as error:  # which ends with "choose another place"
        raise DvmsrError(f"{error} with XDG_CACHE_HOME") from None


def keep_onnx(stem: str, data: bytes) -> Path:
    """A file of that content in `WEIGHTS`, under a name with its hash: it is neither damaged nor of
    another version.

    Raises:
        DvmsrError: if it cannot be kept.
    """
    digest = hashlib.sha256(data).hexdigest()
    path = folder(WEIGHTS) / f"{stem}-{digest[:16]}.onnx"
    if not holds(path, digest):
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        keep(path, data)
    return path
