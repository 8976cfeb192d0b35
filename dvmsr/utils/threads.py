"""How many threads to compute with, and what is said where none can be started."""

import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.utils import control_groups


def cores() -> int:
    """How many processors this process may use: of those that are there, as many as its control
    groups give it the time of, rounded up."""
    return min([_processors(), *(max(1, math.ceil(share)) for share in _quotas())])


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """Processor time per time that each control group above this process allows, where it limits
    it."""
    for folder in control_groups.folders("cpu"):
        with suppress(OSError, ValueError):  # of the first version, or its limit is "max"
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            yield quota / period
        with suppress(OSError, ValueError):
            quota = int((folder / "cpu.cfs_quota_us").read_text())
            period = int((folder / "cpu.cfs_period_us").read_text())
            if quota > 0:  # -1 where there is no limit
                yield quota / period


NO_MORE = (
    "no further thread or process can be started; end other programs, or raise their number "
    "(ulimit -u, or pids.max of the control group)"
)


def is_refused(error: BaseException) -> bool:
    """Whether this is the system's refusal to start a thread or a process."""
    if isinstance(error, BlockingIOError):  # of fork; that of a pipe that is full tells more
        return not hasattr(error, "characters_written")
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


@contextmanager
def starting() -> Iterator[None]:
    """In the block threads or processes are started.

    Raises:
        DvmsrError: if the system refuses one.
    """
    try:
        yield
    except (RuntimeError, BlockingIOError) as error:
        if is_refused(error):
            raise DvmsrError(NO_MORE) from None
        raise


def check(number: int) -> None:
    """Whether so many further threads can be started at once, before a library needs them that
    would end the process if not.

    Raises:
        DvmsrError: if the system refuses one.
    """
    over, started = threading.Event(), []
    try:
        for _ in range(number):
            thread = threading.Thread(target=over.wait)
            with starting():
                thread.start()
            started.append(thread)
    finally:
        over.set()
        for thread in started:
            thread.join()


def bounded(threads: int | None) -> int | None:
    """The number that was asked for, but at most one per processor. None stays None, unless the
    time of fewer processors is given than there are, which backends do not see.

    More would take turns on the same processors, many times slower. Warns where that changes a
    number that was asked for.

    Raises:
        UsageError: if it is not a positive integer.
    """
    if threads is None:
        return cores() if cores() < _processors() else None
    if not isinstance(threads, int) or threads < 1:
        raise UsageError(f"the number of threads must be a positive integer, not {threads!r}")
    if threads > cores():
        warnings.warn(
            f"{threads} threads are more than the {cores()} processors here; using {cores()}",
            stacklevel=2,
        )
    return min(threads, cores())
