"""Batches made ahead are those asked for, in order, and their failures are not lost."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from dvmsr.train.data.prefetch import Prefetch


def test_without_lookahead_the_caller_makes_each() -> None:
    made: list[tuple[int, int]] = []
    batches = Prefetch(lambda step: made.append((step, threading.get_ident())), 0)
    batches(3)
    batches(4)
    assert made == [(3, threading.get_ident()), (4, threading.get_ident())]


def test_the_next_are_made_at_once_and_given_out_in_order() -> None:
    """Each thread waits until all are at work, and the first one to begin ends last."""
    made: list[int] = []
    together = threading.Barrier(3, timeout=30)
    second = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        assert threading.current_thread() is not threading.main_thread()
        if step < 10:
            together.wait()
        if step == 7:
            assert second.wait(30)
        elif step == 8:
            second.set()
        return step * step

    with closing(Prefetch(make, 3)) as batches:
        assert [batches(step) for step in (7, 8, 9)] == [49, 64, 81]
    assert set(made) >= {7, 8, 9} and len(made) == len(set(made)) <= 6


def test_a_failure_comes_out_at_its_step() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise MemoryError
        return step

    with closing(Prefetch(make, 2)) as batches:
        assert [batches(0), batches(1)] == [0, 1]
        with pytest.raises(MemoryError):
            batches(2)
