"""Writing a file entirely or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from dvmsr.errors import DvmsrError


def check_target(path: Path, overwrite: bool) -> None:
    """Whether `write_atomically` may write here, as far as that shows beforehand.

    Raises:
        DvmsrError: if the file exists and may not be overwritten, or its folder is missing.
    """
    if path.exists():
        if not path.is_file():
            raise DvmsrError(f"{path} exists and is not a file; choose another name with -o")
        if not overwrite:
            raise _exists(path)
    elif not path.parent.is_dir():
        raise DvmsrError(f"{path.parent} is not a folder; create it or choose another with -o")


def write_atomically(path: Path, data: bytes, overwrite: bool) -> None:
    """Write to a temporary file beside the target, flush it to the disk and rename it.

    Raises:
        DvmsrError: if the target exists and may not be overwritten, or cannot be written.
    """
    target = Path(os.path.realpath(path))  # the file itself where `path` is a link
    temporary = target.with_name(f".dvmsr-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            _rename_to_new(temporary, target)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise DvmsrError(
            f"{path} cannot be written ({error.strerror}); choose another place with -o"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename without replacing; a hard link refuses that atomically where there are such links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError from None
        temporary.rename(path)


def _exists(path: Path) -> DvmsrError:
    return DvmsrError(f"{path} exists; allow that with --overwrite or choose another name with -o")
