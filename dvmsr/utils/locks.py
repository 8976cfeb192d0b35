"""One process at a time, by a lock on a file, which ends with the process that holds it."""

import time
from collections.abc import Callable
from typing import IO, Any

from dvmsr.errors import DvmsrError
from dvmsr.utils import signals

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]


def hold(file: IO[Any] | int, busy: DvmsrError | Callable[[], object]) -> None:
    """Keep all others who call this from a file until it is closed.

    Where there are no locks, as on some file systems, nobody is kept from it. A signal ends the
    wait.

    Args:
        file: or its descriptor, opened for this call; for writing, or NFS gives no lock.
        busy: what to raise if another holds the file; or what to call once before waiting for it.

    Raises:
        DvmsrError: `busy`.
        Ended: if a signal comes meanwhile.
    """
    if fcntl is None:
        return
    if _is_taken(file):
        if isinstance(busy, DvmsrError):
            raise busy
        busy()
        signals.wait(lambda seconds: not _is_taken(file, seconds))


def _is_taken(file: IO[Any] | int, seconds: float = 0) -> bool:
    """Whether another still holds the file after so many seconds; else it is held from now on."""
    time.sleep(seconds)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        pass
    return False
