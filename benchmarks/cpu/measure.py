"""What the benchmarks share: a race in turns, and where its result is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dvmsr.runtime.bench.timing import interleave, on_the_wall, summarise

RESULTS = Path(__file__).resolve().parents[1] / "results"


def race(
    contestants: dict[str, Callable[[], Any]],
    base: str,
    rounds: int,
    warmup: int = 1,
    races: int = 1,
) -> dict[str, dict[str, Any]]:
    """The times of each contestant (`dvmsr.runtime.bench.timing.Times`), with ratios to `base`.

    The machine's speed may change how contestants compare. So several races, which should be
    minutes long together, all count: the times and `ratio` are of their rounds together,
    `ratios` has that of each race, in order.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    ratios: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(races):
        runs = interleave([on_the_wall(work) for work in contestants.values()], rounds, warmup)
        this = dict(zip(contestants, runs, strict=True))
        for name, own in this.items():
            seconds[name] += own
            ratios[name].append(summarise(own, this[base]).ratio)
    return {
        name: {**asdict(summarise(own, seconds[base])), "ratios": ratios[name]}
        for name, own in seconds.items()
    }


def write(name: str, content: dict[str, Any]) -> None:
    """Store as benchmarks/results/<name>.json and print it."""
    text = json.dumps(content, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
