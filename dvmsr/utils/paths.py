"""What is checked of a path before work starts, the same in every command.

`exists`, `is_file` and `is_dir` are those of pathlib, but False where the question cannot be
answered: pathlib's raise below a folder that may not be entered or for a name that is too long.
"""

import os
import re
import stat
from pathlib import Path

from dvmsr.errors import DvmsrError, UsageError

IMPORT_PATH = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")
"""`package.module:factory`, which names an object in place of a file."""


def is_import_path(name: str) -> bool:
    """Whether it names a factory rather than a file."""
    return bool(IMPORT_PATH.fullmatch(name)) and not exists(Path(name))


def exists(path: Path) -> bool:
    """Whether there is something of that name, links followed."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Whether it is a regular file, links followed."""
    return os.path.isfile(path)  # noqa: PTH113


def is_dir(path: Path) -> bool:
    """Whether it is a folder, links followed."""
    return os.path.isdir(path)  # noqa: PTH112


def check_input(path: Path) -> None:
    """Whether this is a file that can be read to its end; it is not opened.

    Raises:
        UsageError: if there is none, or it is a folder, pipe or device.
        DvmsrError: if that cannot be found out.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path} does not exist; check the name") from None
    except OSError as error:
        raise unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no regular file; save its content to one")


def check_encodable(path: Path) -> None:
    """Whether libraries that take names as UTF-8 can open this file: ONNX Runtime, safetensors.

    Raises:
        UsageError: if not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path} is no valid UTF-8 name; rename it") from None


def unreadable(path: Path, error: OSError) -> DvmsrError:
    """What to raise when an existing file or folder cannot be read."""
    return DvmsrError(f"{path} cannot be read ({error.strerror}); check its name and permissions")
