"""Batches made ahead are those asked for, in order, and their failures are not lost."""

from __future__ import annotations

import threading

import pytest

from dvmsr.train.prefetch import Prefetch


def test_without_lookahead_the_caller_makes_each() -> None:
    made: list[tuple[int, int]] = []
    batches = Prefetch(lambda step: made.append((step, threading.get_ident())), 0)
    batches(3)
    batches(4)
    assert made == [(3, threading.get_ident()), (4, threading.get_ident())]


def test_the_next_are_made_by_one_thread_in_order() -> None:
    made: list[int] = []
    threads = set()
    enough = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        threads.add(threading.get_ident())
        if len(made) == 5:
            enough.set()
        return step * step

    with Prefetch(make, 2) as batches:
        assert [batches(step) for step in (7, 8, 9)] == [49, 64, 81]
        assert enough.wait(10)
    assert made == [7, 8, 9, 10, 11]
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_a_failure_comes_out_at_its_step() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise MemoryError
        return step

    with Prefetch(make, 2) as batches:
        assert [batches(0), batches(1)] == [0, 1]
        with pytest.raises(MemoryError):
            batches(2)
