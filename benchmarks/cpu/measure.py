"""What the benchmarks share: a race in turns, and where its result is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dvmsr.runtime.timing import interleave, on_the_wall, summarise

RESULTS = Path(__file__).resolve().parents[1] / "results"


def race(
    contestants: dict[str, Callable[[], Any]], base: str, rounds: int, warmup: int = 1
) -> dict[str, dict[str, float]]:
    """The times of each contestant (`dvmsr.runtime.timing.Times`), with ratios to `base`."""
    runs = interleave([on_the_wall(work) for work in contestants.values()], rounds, warmup)
    seconds = dict(zip(contestants, runs, strict=True))
    return {name: asdict(summarise(own, seconds[base])) for name, own in seconds.items()}


def write(name: str, content: dict[str, Any]) -> None:
    """Store as benchmarks/results/<name>.json and print it."""
    text = json.dumps(content, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
