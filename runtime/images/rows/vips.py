"""libvips, which reads and writes pictures by rows: the extra `large`."""

import weakref
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from dvmsr.errors import MissingComponentError


@cache
def import_vips() -> ModuleType:
    """pyvips, without its cache of results, which would keep pictures in memory and files open.

    Raises:
        MissingComponentError: if it is missing or does not load.
    """
    try:
        import pyvips
    except ModuleNotFoundError as error:
        raise MissingComponentError(
            f"reading and writing pictures by rows needs {error.name}: pip install 'dvmsr[large]'"
        ) from None
    except OSError as error:
        raise MissingComponentError(
            f"libvips does not load ({error}): pip install 'dvmsr[large]'"
        ) from None
    pyvips.cache_set_max(0)
    return pyvips


def source(path: Path) -> Any:
    """A file for a loader of libvips, which would map one that it opens itself: should that become
    shorter meanwhile, the process would end by SIGBUS.

    Raises:
        OSError: if it cannot be opened.
    """
    file = path.open("rb", buffering=0)
    made = import_vips().SourceCustom()
    weakref.finalize(made, file.close)

    def read(size: int) -> bytes:
        try:
            return file.read(size)
        except OSError:
            return b""  # the end of the file, before that of the picture

    made.on_read(read)
    made.on_seek(file.seek)
    return made


def installed() -> bool:
    """Whether pictures can be read and written by rows."""
    try:
        import_vips()
    except MissingComponentError:
        return False
    return True
