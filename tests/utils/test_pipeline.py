"""The order of the three stages, what ends an item, and what ends everything."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from no_threads import refuse_threads
from processes import LIMIT

from dvmsr.errors import DvmsrError
from dvmsr.utils.pipeline import pipeline
from dvmsr.utils.threads import NO_MORE


@settings(max_examples=25, deadline=None)
@given(
    fates=st.lists(st.sampled_from(["fine", "load", "work", "save"]), max_size=8),
    alone=st.booleans(),
)
def test_every_item_has_its_outcome_in_order(fates: list[str], alone: bool) -> None:
    def stage(name: str, number: int) -> int:
        if fates[number] == name:
            raise DvmsrError(f"{name} {number}")
        return number

    outcomes = pipeline(
        range(len(fates)),
        load=lambda number: stage("load", number),
        work=lambda number, loaded: stage("work", loaded),
        save=lambda number, made: stage("save", made),
        alone=lambda loaded: alone,
    )
    expected = [n if fate == "fine" else f"{fate} {n}" for n, fate in enumerate(fates)]
    told = [(n, str(o) if isinstance(o, DvmsrError) else o) for n, o in outcomes]
    assert told == list(enumerate(expected))


def test_the_stages_overlap() -> None:
    """The work on 1 ends only after 2 is loaded, and 0 is saved only while that work goes on."""
    loaded_2, working_1, saved_0 = (threading.Event() for _ in range(3))

    def load(number: int) -> int:
        if number == 2:
            loaded_2.set()
        return number

    def work(number: int, loaded: int) -> int:
        if number == 1:
            working_1.set()
            assert loaded_2.wait(20)
            assert saved_0.wait(20)
        return loaded

    def save(number: int, made: int) -> int:
        if number == 0:
            assert working_1.wait(20)
            saved_0.set()
        return made

    assert [number for number, _ in pipeline(range(4), load, work, save)] == [0, 1, 2, 3]


def test_what_must_be_alone_waits_for_what_is_before() -> None:
    begun = [threading.Event() for _ in range(4)]

    def save(number: int, made: int) -> int:
        assert not begun[number + 1].wait(0.05)
        return number

    def work(number: int, loaded: int) -> int:
        begun[number].set()
        return loaded

    outcomes = pipeline(range(3), lambda n: n, work, save, alone=lambda loaded: True)
    assert [outcome for _, outcome in outcomes] == [0, 1, 2]


@pytest.mark.parametrize("stage", ["load", "work"])
def test_an_interrupt_tells_of_what_is_done_and_goes_on(stage: str) -> None:
    def interrupt(name: str, number: int) -> int:
        if name == stage and number == 2:
            raise KeyboardInterrupt
        return number

    told: list[int] = []

    def run() -> Iterator[int]:
        for number, _ in pipeline(
            range(9),
            lambda number: interrupt("load", number),
            lambda number, loaded: interrupt("work", loaded),
            lambda number, made: made,
        ):
            yield number

    remaining = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        for number in run():
            told.append(number)
    assert told == [0, 1]
    assert threading.active_count() <= remaining


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_also_ends_who_wants_no_more(interrupt: type[BaseException]) -> None:
    """Who stops at an outcome that is told after an interrupt, as at the end of a video."""
    saving, interrupted = threading.Event(), threading.Event()

    def work(number: int, loaded: int) -> int:
        if number == 1:
            assert saving.wait(20)
            interrupted.set()
            raise interrupt
        return loaded

    def save(number: int, made: int) -> int:
        saving.set()
        assert interrupted.wait(20)
        return made

    outcomes = pipeline(range(3), lambda number: number, work, save)
    with pytest.raises(interrupt), closing(outcomes):
        assert next(outcomes) == (0, 0)


class Items(list[int]):
    """Tells when the last one's turn is over."""

    def __init__(self, *items: int) -> None:
        super().__init__(items)
        self.over = threading.Event()

    def __iter__(self) -> Iterator[int]:
        yield from super().__iter__()
        self.over.set()


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_what_is_being_saved_is_told_after_an_interrupt(request: pytest.FixtureRequest) -> None:
    """Of the last item, too, whose saving nothing but its end is waiting for."""
    items, interrupted = Items(7), threading.Event()

    def interrupt(number: int, frame: object) -> NoReturn:
        interrupted.set()
        raise KeyboardInterrupt

    def save(number: int, made: int) -> int:
        assert items.over.wait(LIMIT)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.wait(LIMIT)
        return made

    told = []
    handler = signal.signal(signal.SIGINT, interrupt)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    with pytest.raises(KeyboardInterrupt):
        for outcome in pipeline(items, lambda number: number, lambda number, loaded: loaded, save):
            told.append(outcome)
    assert told == [(7, 7)]


def test_a_bug_is_no_outcome() -> None:
    with pytest.raises(ZeroDivisionError):
        list(pipeline([0], lambda n: 1 // n, lambda n, loaded: loaded, lambda n, made: made))


@pytest.mark.parametrize("stage", ["load", "work", "save"])
def test_two_thousand_failures_keep_nothing_alive(stage: str) -> None:
    """Neither pixels nor files that the code which failed had in hand; without the collector of
    cycles, whom bytes do not wake."""
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most = 0

    class Pixels:
        pass

    def attempt(name: str, number: int) -> int:
        pixels = Pixels()
        alive.add(pixels)
        if name == stage:
            try:
                raise OSError(5, "damaged")
            except OSError:
                raise DvmsrError(f"{number}") from None
        return number

    gc.disable()
    try:
        told = []
        outcomes = pipeline(
            range(2000),
            lambda number: attempt("load", number),
            lambda number, loaded: attempt("work", loaded),
            lambda number, made: attempt("save", made),
        )
        for _, outcome in outcomes:
            told.append(outcome)
            most = max(most, len(alive))
    finally:
        gc.enable()
    assert [str(error) for error in told] == [str(number) for number in range(2000)]
    assert most <= 6


@pytest.mark.parametrize("threads", [0, 1])
def test_every_item_fails_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    def stage(*_: object) -> NoReturn:
        raise AssertionError("it was called")

    refuse_threads(monkeypatch, after=threads)
    outcomes = dict(pipeline("ab", load=stage, work=stage, save=stage))
    assert outcomes.keys() == {"a", "b"}
    assert {str(outcome) for outcome in outcomes.values()} == {NO_MORE}
