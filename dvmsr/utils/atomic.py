"""Writing a file entirely or not at all: the only way in which dvmsr writes its results.

The temporary file beside the target is removed whatever ends the writing: an exception or, in the
command lines, a signal (`dvmsr.utils.signals`).
"""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.utils import rights, signals
from dvmsr.utils.paths import exists, is_dir, is_file


def check_target(path: Path, overwrite: bool) -> None:
    """Whether `write_atomically` may write here, as far as that shows beforehand.

    Raises:
        UsageError: if the file exists and may not be overwritten, or its folder is missing.
        DvmsrError: if no file can be made in its folder.
    """
    if exists(path):
        if not is_file(path):
            raise UsageError(f"{path} exists and is not a file; choose another name")
        if not overwrite:
            raise _exists(path)
    elif not is_dir(path.parent):
        raise UsageError(f"{path.parent} is not a folder; create it or choose another")
    check_folder(Path(os.path.realpath(path)).parent)


def check_folder(folder: Path) -> None:
    """Whether files can be made in a folder, or in the one that it would be made in.

    Tried with a file that has no name, so nothing stays behind.

    Raises:
        DvmsrError: if not.
    """
    place = folder
    try:
        while not _found(place):
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        # A folder of the kernel's answers a new name with "No such file or directory".
        closed = isinstance(error, FileNotFoundError)
        reason = f"{place} takes no new files" if closed else error.strerror
        raise DvmsrError(
            f"{folder} cannot be written to ({reason}); choose another place"
        ) from None


def _found(path: Path) -> bool:
    """Whether there is such a name; what makes that impossible is raised."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """The name of a temporary file to be written in the block, which then becomes `path`.

    It lies beside the target, or beside the file that the target is a link to, has a short name
    of its own, and is flushed to the disk before it is renamed. In place of an existing file it is
    its owner's alone until then, and has that file's rights afterwards (`rights.take_over`). If
    the block raises, it is removed and the target is as before.

    Raises:
        UsageError: if the target exists and may not be overwritten.
        DvmsrError: if it cannot be written: an `OSError` of the block about this file is turned
            into one.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".dvmsr-{secrets.token_hex(8)}.tmp")
    try:
        with signals.temporary(temporary):
            if overwrite and exists(target):
                rights.create_private(temporary)
            yield temporary
            with temporary.open("rb+") as file:
                if overwrite and exists(target):
                    rights.take_over(target, file.fileno())
                os.fsync(file.fileno())
            with signals.finishing:
                if overwrite:
                    temporary.replace(target)
                else:
                    _rename_to_new(temporary, target)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) != str(temporary):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room or choose another place" if full else "choose another place"
        raise DvmsrError(
            f"{path} cannot be written ({error.strerror or error}); {remedy}"
        ) from None


def write_atomically(path: Path, data: bytes | memoryview, overwrite: bool) -> None:
    """Write `data` as a file by way of `replacing`.

    Raises:
        UsageError: if the target exists and may not be overwritten.
        DvmsrError: if it cannot be written.
    """
    with replacing(path, overwrite) as temporary:
        temporary.write_bytes(data)


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Rename without replacing.

    A hard link refuses an existing name atomically. A file system without hard links leaves a
    moment between looking and renaming, in which a file that another process makes is replaced.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        if exists(target):
            raise FileExistsError from None
        temporary.rename(target)


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists; allow that with --overwrite or choose another name")
