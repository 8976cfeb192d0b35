"""Batches made ahead, in a thread, while the device computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Calls `make(step)`, those of the next steps ahead of time; a context manager.

    One thread makes one batch at a time, in order, so `make` may keep a state of its own.

    Args:
        make: a function of the step number.
        ahead: how many steps; 0 makes each batch when it is asked for, in the caller's thread.
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
            self.pool = ThreadPoolExecutor(1)
        for needed in range(step, step + 1 + self.ahead):
            if needed not in self.pending:
                self.pending[needed] = self.pool.submit(self.make, needed)
        return self.pending.pop(step).result()

    def close(self) -> None:
        """Forget what was not asked for; waits for the batch that is being made."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            self.pool = None
        self.pending.clear()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
