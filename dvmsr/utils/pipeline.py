"""Three stages of work on many items, so that the middle one never waits for the other two."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import TypeVar

from dvmsr.errors import EXPECTED, DvmsrError
from dvmsr.utils import signals, threads

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Worked = TypeVar("Worked")
Saved = TypeVar("Saved")

Expected = DvmsrError | OSError | MemoryError
"""`dvmsr.errors.EXPECTED` as a type."""


def pipeline(
    items: Sequence[Item],
    load: Callable[[Item], Loaded],
    work: Callable[[Item, Loaded], Worked],
    save: Callable[[Item, Worked], Saved],
    alone: Callable[[Loaded], bool] = lambda loaded: False,
) -> Generator[tuple[Item, Saved | Expected], None, None]:
    """What became of each item, in their order, as soon as it is known.

    `load` and `save` run in a thread each, `work` in the caller's. While it works on an item, the
    next is loaded and the one before saved. What a stage raises of `dvmsr.errors.EXPECTED` ends
    that item alone. Anything else ends everything, after what is worked out is saved. Where the
    threads cannot be started, every item fails for that.

    Args:
        load: item -> what work needs.
        work: item and what was loaded -> what is to be saved.
        save: item and what work made -> outcome.
        alone: whether work on what was loaded has to wait until all before it is saved, for want
            of memory.
    """
    with ThreadPoolExecutor(1) as loader, ThreadPoolExecutor(1) as saver:
        try:
            with threads.starting():
                for pool in (loader, saver):
                    pool.submit(bool).result()
        except DvmsrError as error:
            yield from ((item, error) for item in items)
            return
        saving: deque[tuple[Item, Future[Saved]]] = deque()
        try:
            loading = [loader.submit(load, item) for item in items[:1]]
            for number, item in enumerate(items):
                this = loading.pop()
                signals.wait(partial(_is_done, this))
                loading += [loader.submit(load, later) for later in items[number + 1 : number + 2]]
                most = 0 if this.exception() is None and alone(this.result()) else 1
                yield from _finished(saving, most)
                try:
                    made = work(item, this.result())
                except EXPECTED as error:
                    saving.append((item, _failed(error)))
                else:
                    saving.append((item, saver.submit(save, item, made)))
            yield from _finished(saving, 0)
        except (signals.Ended, KeyboardInterrupt):
            loader.shutdown(cancel_futures=True)
            with suppress(GeneratorExit):  # who wants no more outcomes is interrupted all the same
                yield from _finished(saving, 0)
            raise


def _finished(
    saving: deque[tuple[Item, Future[Saved]]], most: int
) -> Iterator[tuple[Item, Saved | Expected]]:
    """The outcomes at the front, until at most so many are left, and of those the ones known."""
    while saving and (len(saving) > most or saving[0][1].done()):
        item, future = saving[0]
        try:
            outcome: Saved | Expected = future.result()
        except EXPECTED as error:
            outcome = error
        saving.popleft()  # not before: after an interrupt it is waited for and told, too
        yield item, outcome


def _is_done(future: Future[Loaded], seconds: float) -> bool:
    return bool(wait([future], seconds).done)


def _failed(error: Exception) -> Future[Saved]:
    future: Future[Saved] = Future()
    future.set_exception(error)
    return future
