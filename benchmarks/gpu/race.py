"""Contestants that take turns for as long as there is time: a slow one takes part in fewer
rounds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

WARMUP = 1
FEWEST = 5
"""Rounds that everybody runs, whatever they take."""


def race(
    contestants: dict[str, Callable[[], float]], rounds: int, allowed: float
) -> dict[str, list[float]]:
    """Seconds of each contestant in each of its rounds, after a warm-up.

    The order changes from round to round. Each contestant has an equal part of `allowed` seconds by
    the clock; once that is used up, it sits out what is left of the rounds.
    """
    shuffle = random.Random(0).shuffle
    order = list(contestants)
    times: dict[str, list[float]] = {name: [] for name in order}
    used = dict.fromkeys(order, 0.0)
    share = allowed / max(len(order), 1)
    for number in range(-WARMUP, rounds):
        shuffle(order)
        for name in order:
            if number >= FEWEST and used[name] >= share:
                continue
            started = time.perf_counter()
            taken = contestants[name]()
            used[name] += time.perf_counter() - started
            if number >= 0:
                times[name].append(taken)
    return times
