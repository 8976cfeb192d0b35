"""libvips, which reads and writes pictures by rows: the extra `large`."""

from functools import cache
from types import ModuleType

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


def installed() -> bool:
    """Whether pictures can be read and written by rows."""
    try:
        import_vips()
    except MissingComponentError:
        return False
    return True
