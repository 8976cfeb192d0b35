"""Turns, warm-up and the statistics of timings."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from dvmsr.runtime.bench.timing import interleave, on_the_wall, summarise


def test_contestants_take_turns() -> None:
    log: list[str] = []

    def contestant(name: str, seconds: float) -> Callable[[], float]:
        def run() -> float:
            log.append(name)
            return seconds + len(log) // 3  # drifts by one second a round

        return run

    progress: list[None] = []
    seconds = interleave(
        [contestant("a", 0.25), contestant("b", 0.5), contestant("c", 0.75)],
        rounds=20,
        warmup=2,
        progress=lambda: progress.append(None),
    )
    rounds = [log[k : k + 3] for k in range(0, len(log), 3)]
    assert len(rounds) == 22 and len(progress) == 66
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1  # in changing order
    assert [len(own) for own in seconds] == [20, 20, 20]
    assert min(seconds[0]) >= 2.25  # the warm-up does not count


def test_statistics() -> None:
    seconds = [k / 1000 for k in range(1, 102)]
    times = summarise(seconds, [2 * s for s in seconds])
    assert times.p50_ms == pytest.approx(51)
    assert times.p95_ms == pytest.approx(96)
    assert times.p99_ms == pytest.approx(100)
    assert (times.min_ms, times.max_ms) == (1, 101)
    assert times.ratio == pytest.approx(0.5)


def test_the_ratio_is_of_rounds_not_of_medians() -> None:
    """A machine that slows down by half in every second round changes times, not ratios."""
    slow = np.array([1, 2] * 5)
    assert summarise(list(3 * slow), list(slow)).ratio == pytest.approx(3)
    assert summarise([3, 1, 5], [1, 1, 5]).ratio == 1


def test_the_wall_clock() -> None:
    assert on_the_wall(lambda: time.sleep(0.02))() >= 0.02
