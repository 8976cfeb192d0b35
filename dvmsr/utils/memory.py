"""How much memory there is, and how much this process took."""

import os
import sys
from contextlib import suppress
from pathlib import Path

_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def available() -> int | None:
    """Bytes that this process may still take without swapping; None where that is unknown."""
    amounts = []
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        amounts.append(int(line.split()[1]) * 1024)
    for limit, usage in _CGROUP_FILES:
        with suppress(OSError, ValueError):  # no such group, or its limit is "max"
            used = int(Path(usage).read_text()) - _reclaimable(Path(usage).parent)
            amounts.append(int(Path(limit).read_text()) - used)
    if not amounts:
        with suppress(AttributeError, OSError, ValueError):
            amounts.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(amounts, default=None)


def peak_resident() -> int | None:
    """Largest resident memory of this process so far, in bytes; None where that is not known.

    Not `getrusage`, which on Linux counts the memory of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes there
    return None


def _reclaimable(group: Path) -> int:
    """Bytes of cached files that the group's usage includes and that it gives up when needed."""
    for line in (group / "memory.stat").read_text().splitlines():
        if line.startswith(("inactive_file ", "total_inactive_file ")):
            return int(line.split()[1])
    return 0
