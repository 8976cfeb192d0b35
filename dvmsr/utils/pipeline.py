"""Three stages of work on many items, so that the middle one never waits for the other two."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from dvmsr.errors import EXPECTED, DvmsrError, bare
from dvmsr.utils import signals, threads

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Worked = TypeVar("Worked")
Saved = TypeVar("Saved")
Made = TypeVar("Made")

Expected = DvmsrError | OSError | MemoryError
"""`dvmsr.errors.EXPECTED` as a type."""
_INTERRUPTIBLE = 0.2
"""Seconds: a signal that comes just before a wait does not end it."""


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
        saving: deque[tuple[Item, Future[Saved | _Failed]]] = deque()

        def begin(item: Item) -> Future[Loaded | _Failed]:
            return loader.submit(_attempt, load, item)

        try:
            loading = [begin(item) for item in items[:1]]
            for number, item in enumerate(items):
                this = loading.pop()
                signals.wait(partial(_is_done, this))
                loading += [begin(later) for later in items[number + 1 : number + 2]]
                loaded = this.result()
                most = 0 if not isinstance(loaded, _Failed) and alone(loaded) else 1
                yield from _finished(saving, most)
                made = loaded if isinstance(loaded, _Failed) else _attempt(work, item, loaded)
                del this, loaded
                if isinstance(made, _Failed):
                    saving.append((item, _known(made)))
                else:
                    saving.append((item, saver.submit(_attempt, save, item, made)))
                del made
            yield from _finished(saving, 0)
        except (signals.Ended, KeyboardInterrupt):
            loader.shutdown(cancel_futures=True)
            with suppress(GeneratorExit):  # who wants no more outcomes is interrupted all the same
                yield from _finished(saving, 0)
            raise


@dataclass(frozen=True)
class _Failed:
    """What a stage gives instead of its result."""

    error: Expected


def _attempt(stage: Callable[..., Made], *arguments: Any) -> Made | _Failed:
    try:
        return stage(*arguments)
    except EXPECTED as error:
        return _Failed(bare(error))


def _finished(
    saving: deque[tuple[Item, Future[Saved | _Failed]]], most: int
) -> Iterator[tuple[Item, Saved | Expected]]:
    """The outcomes at the front, until at most so many are left, and of those the ones known."""
    while saving and (len(saving) > most or saving[0][1].done()):
        item, future = saving[0]
        while not _is_done(future, _INTERRUPTIBLE):
            pass
        outcome = future.result()
        saving.popleft()  # not before: after an interrupt it is waited for and told, too
        yield item, outcome.error if isinstance(outcome, _Failed) else outcome


def _is_done(future: Future[Any], seconds: float) -> bool:
    return bool(wait([future], seconds).done)


def _known(failed: _Failed) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(failed)
    return future
