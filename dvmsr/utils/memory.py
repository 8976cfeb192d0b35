"""How much memory there is, and how much this process took."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dvmsr.utils import control_groups
from dvmsr.utils.threads import cores

try:
    import resource
except ImportError:  # no POSIX
    resource = None  # type: ignore[assignment]

_GROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory.high", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Limit and usage, of control groups of the second and the first version."""
_LIMITS = (("RLIMIT_AS", "VmSize", 72 << 20), ("RLIMIT_DATA", "VmData", 9 << 20))
"""Limits of the process (`ulimit -v`, `-d`), what of `/proc/self/status` they are for, and what a
thread takes of it: 8 MiB of stack and, of addresses, 64 MiB in which glibc allocates for it."""
_THREADS = 3
"""That are started besides one per processor: to read, to write and to run a session."""


def available() -> int | None:
    """Bytes that this process may still take without swapping, being ended or being refused them;
    None where that is unknown.

    The least of what the machine has, what the control groups of the process and all above them
    leave, and what the process's own limits leave beside threads that are still to start.
    """
    return min([*_of_machine(), *_of_groups(), *_of_limits()], default=None)


def _of_machine() -> Iterator[int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        yield int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        with suppress(AttributeError, OSError, ValueError):
            yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_groups() -> Iterator[int]:
    for folder in control_groups.folders("memory"):
        for limit, usage in _GROUP_FILES:
            with suppress(OSError, ValueError):  # no such group, or its limit is "max"
                most = int((folder / limit).read_text())
                yield most - int((folder / usage).read_text()) + _reclaimable(folder)


def _of_limits() -> Iterator[int]:
    for name, taken, of_thread in _LIMITS:
        with suppress(AttributeError, OSError, IndexError, ValueError):
            most, _ = resource.getrlimit(getattr(resource, name))
            if most != resource.RLIM_INFINITY:
                yield most - _status(taken) - (_THREADS + cores()) * of_thread


def peak_resident() -> int | None:
    """Largest resident memory of this process so far, in bytes; None where that is not known.

    Not `getrusage`, which on Linux counts the memory of the process that started this one.
    """
    with suppress(OSError, IndexError, ValueError):
        return _status("VmHWM")
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes there
    return None


def _status(name: str) -> int:
    """Bytes of an entry of `/proc/self/status`.

    Raises:
        OSError, IndexError, ValueError: where there is none.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{name}:")[1].split()[0])


def _reclaimable(group: Path) -> int:
    """Bytes of cached files that the group's usage includes and that it gives up when needed."""
    lines = (group / "memory.stat").read_text().splitlines()
    amounts = dict(line.split(" ", 1) for line in lines if "inactive_file " in line)
    return int(amounts.get("total_inactive_file", amounts.get("inactive_file", 0)))
