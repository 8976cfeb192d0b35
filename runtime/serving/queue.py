"""The pictures that the service is at: bounded in number, computed in their turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from dvmsr.runtime.serving.limits import Limits
from dvmsr.runtime.serving.refusals import BUSY_SECONDS, Refusal, ending
from dvmsr.utils import signals

RECEIVING, WAITING, COMPUTING, SENDING = "receiving", "waiting", "computing", "sending"
_LONGEST = 60
"""Seconds that a client is told to wait at most."""
_WEIGHT = 0.3
"""Of the last picture in the mean time of all."""

Made = TypeVar("Made")


class _Stopped(BaseException):
    """Nobody waits for the picture any more, or it took too long."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


class Job:
    """One picture."""

    def __init__(self, id: str, client: str, seconds: float) -> None:
        self.id, self.client = id, client
        self.state = RECEIVING
        self.rows: tuple[int, int] | None = None
        """Rows that are done, and all; None before the first are."""
        self._most = seconds
        self._end = math.inf
        self._why: Refusal | None = None
        """To stop."""
        self._future: Future[Any] | None = None

    def show(self, done: int, rows: int) -> None:
        """Note how many rows are done, and go no further if the work is to stop."""
        self.rows = done, rows
        signals.check()

    def stop(self, why: Refusal) -> None:
        """Give up what is done, or was to be done."""
        self._why = why
        if self._future is not None:
            self._future.cancel()

    def begin(self) -> None:
        """The time that is allowed begins."""
        self.state = COMPUTING
        self._end = time.monotonic() + self._most

    def check(self) -> None:
        """
        Raises:
            _Stopped: if the work is to stop.
        """
        if self._why is not None:
            raise _Stopped(self._why)
        if time.monotonic() > self._end:
            raise _Stopped(
                Refusal(
                    503,
                    f"the picture was given up after {self._most:g} seconds, the most that it "
                    "may take here; make it smaller",
                )
            )


class Queue:
    """Belongs to an event loop, in whose thread all methods are called.

    Args:
        at_once: pictures that are computed at one time.
    """

    def __init__(self, limits: Limits, at_once: int = 1) -> None:
        self._limits = limits
        self._jobs: dict[str, Job] = {}
        self._workers = ThreadPoolExecutor(at_once, "enlarging")
        self._mean = float(BUSY_SECONDS)
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def close(self) -> None:
        """Take no more, and give up what is there."""
        self._closed = True
        for job in self._jobs.values():
            job.stop(ending())
        self._workers.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def place(self, id: str, client: str) -> Iterator[Job]:
        """In the block, a picture counts.

        Raises:
            Refusal: if there is no place for it, or one of its name.
        """
        if self._closed:
            raise ending()
        if id in self._jobs:
            raise Refusal(409, "a picture with this id is being worked on; choose another id")
        if sum(job.client == client for job in self._jobs.values()) >= self._limits.per_client:
            raise Refusal(
                429,
                f"{self._limits.per_client} pictures from your address are being worked on, the "
                "most at one time; wait for one of them",
                self._wait(),
            )
        if len(self._jobs) >= self._limits.queue:
            raise Refusal(503, "the service is busy; try again later", self._wait())
        self._jobs[id] = job = Job(id, client, self._limits.seconds)
        try:
            yield job
        finally:
            del self._jobs[id]

    def _wait(self) -> int:
        """Seconds until a place may be free."""
        return min(_LONGEST, max(1, math.ceil(self._mean)))

    async def run(self, job: Job, work: Callable[[], Made]) -> Made:
        """Do it when its turn comes, in another thread, from which `signals.check` stops it.

        Raises:
            Refusal: if it was stopped, or as `work`.
        """

        def watched() -> Made:
            job.begin()
            start = time.monotonic()
            try:
                with signals.checking(job.check):
                    signals.check()
                    return work()
            except _Stopped as stopped:
                raise stopped.refusal from None
            except signals.Ended:
                raise ending() from None
            finally:
                self._mean += _WEIGHT * (time.monotonic() - start - self._mean)

        if self._closed:
            raise ending()
        job.state = WAITING
        self._jobs[job.id] = self._jobs.pop(job.id)  # they are in the order of their turns
        job._future = future = self._workers.submit(watched)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if job._why is None or not future.cancelled():
                raise
            raise job._why from None
        finally:
            job.state = SENDING

    def progress(self, id: str) -> dict[str, Any] | None:
        """How far a picture is, JSON-ready: its state, how many are before it, rows that are done
        and all, which is null before the first are; None for none."""
        job = self._jobs.get(id)
        if job is None:
            return None
        done, rows = job.rows or (0, None)
        before = 0
        for other in self._jobs.values():
            if other is job:
                break
            before += other.state in (WAITING, COMPUTING)
        return {"state": job.state, "before": before, "done": done, "of": rows}
