"""Batches made ahead, in threads, while the device computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Calls `make(step)`, those of the next steps ahead of time, until it is closed.

    Args:
        make: a pure function of the step number, called from several threads at once.
        ahead: how many steps, each in a thread of its own; 0 makes each batch when it is asked
            for, in the caller's thread.
    """

    def __init__(self, make: Callable[[int], T], ahead: int) -> None:
        self.make, self.ahead = make, ahead
        self.pending: dict[int, Future[T]] = {}
        self.pool: ThreadPoolExecutor | None = None

    def __call__(self, step: int) -> T:
        """The batch of that step; raises what `make` raised."""
        if not self.ahead:
            return self.make(step)
        if self.pool is None:
            self.pool = ThreadPoolExecutor(self.ahead)
        for needed in range(step, step + 1 + self.ahead):
            if needed not in self.pending:
                self.pending[needed] = self.pool.submit(self.make, needed)
        return self.pending.pop(step).result()

    def close(self) -> None:
        """Forget what was not asked for; waits for the batches that are being made."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            self.pool = None
        self.pending.clear()
