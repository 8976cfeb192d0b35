"""How many threads to compute with."""

import os
import warnings

from dvmsr.errors import UsageError


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bounded(threads: int | None) -> int | None:
    """The number that was asked for, but at most one per processor; None stays None.

    More would take turns on the same processors, many times slower. Warns where that changes the
    number.

    Raises:
        UsageError: if it is not a positive integer.
    """
    if threads is None:
        return None
    if not isinstance(threads, int) or threads < 1:
        raise UsageError(f"the number of threads must be a positive integer, not {threads!r}")
    if threads > cores():
        warnings.warn(
            f"{threads} threads are more than the {cores()} processors here; using {cores()}",
            stacklevel=2,
        )
    return min(threads, cores())
