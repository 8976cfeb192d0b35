"""Timings that can be compared: contestants take turns, so that drift of the machine's speed meets
all of them alike."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Contestant = Callable[[], float]
"""Does its work once and returns how many seconds that took."""


def on_the_wall(work: Callable[[], Any]) -> Contestant:
    """A contestant whose work is timed from call to return."""

    def timed() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return timed


def interleave(
    contestants: Sequence[Contestant],
    rounds: int,
    warmup: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> list[list[float]]:
    """Seconds of each contestant in every round, after rounds that do not count.

    Every round runs each contestant once, in an order that changes from round to round.

    Args:
        progress: called after each run.
    """
    shuffle = random.Random(0).shuffle
    order = list(range(len(contestants)))
    seconds: list[list[float]] = [[] for _ in contestants]
    for number in range(-warmup, rounds):
        shuffle(order)
        for k in order:
            taken = contestants[k]()
            if number >= 0:
                seconds[k].append(taken)
            progress()
    return seconds


@dataclass(frozen=True)
class Times:
    """What many runs of one contestant took, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    ratio: float
    """Median over the rounds of the time relative to the base's in the same round."""


def summarise(seconds: Sequence[float], base: Sequence[float]) -> Times:
    """The statistics of a contestant's rounds beside those of the base."""
    p50, p95, p99 = 1e3 * np.percentile(seconds, [50, 95, 99])
    return Times(
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        min_ms=1e3 * min(seconds),
        max_ms=1e3 * max(seconds),
        ratio=float(np.median(np.divide(seconds, base))),
    )
