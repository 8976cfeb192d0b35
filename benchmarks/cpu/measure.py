"""Interleaved timing: every round runs each contestant once, so that drift of the machine's speed
meets all of them alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


def interleaved(
    contestants: dict[str, Callable[[], Any]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Wall-clock seconds of every round, by contestant."""
    for _ in range(warmup):
        for run in contestants.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Median milliseconds, and the median over rounds of the time relative to `base`."""
    return {
        name: {
            "median_ms": 1e3 * statistics.median(times),
            "min_ms": 1e3 * min(times),
            "max_ms": 1e3 * max(times),
            f"ratio_to_{base}": statistics.median(
                t / b for t, b in zip(times, seconds[base], strict=True)
            ),
        }
        for name, times in seconds.items()
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from dvmsr import native

    return {
        "processor": _processor(),
        "processors_usable": len(os.sched_getaffinity(0)),
        "isa": native.isa(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def write(name: str, content: dict[str, Any]) -> None:
    """Store as benchmarks/results/<name>.json and print it."""
    text = json.dumps(content, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
