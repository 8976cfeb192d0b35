"""The file of a step's results, and the time that a step has.

`Results` writes `<run>-<step>.json` anew with everything that is added, whole or not at all,
so that a step that is stopped keeps what it has; predictions are in it before the first
measurement. `run.py` names the folder and the run in the environment; a script run by itself
writes into `benchmarks/results` under the GPU's name and the date.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from archive import run_name
from predictions import PREDICTIONS

from dvmsr.errors import DvmsrError
from dvmsr.kernels import cuda
from dvmsr.runtime.bench import machine

FOLDER = "DVMSR_GPU_RESULTS"
OFF = 3
"""Exit code of a step whose results are off."""
MISSING = 4
"""Exit code of a step that lacks something this machine does not have."""


def folder() -> Path:
    """Where results are written."""
    return Path(os.environ.get(FOLDER) or Path(__file__).resolve().parents[1] / "results")


def read(step: str, gpu: str) -> dict[str, Any] | None:
    """Another step's results in this run; None where there are none."""
    path = folder() / f"{run_name(gpu)}-{step}.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content


class Results:
    """One step's file; what is put in is on the disk when the call returns."""

    def __init__(self, step: str, gpu: str, device: cuda.Device | None, what: str) -> None:
        self._path = folder() / f"{run_name(gpu)}-{step}.json"
        self.content: dict[str, Any] = {
            "gpu": vars(device) if device else gpu,
            "machine": machine.describe(),
            "what": what,
            "complete": False,
            "predicted": PREDICTIONS.get(step, {}),
            "left_out": [],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def put(self, **items: Any) -> None:
        """Set entries."""
        self.content |= items
        self._write()

    def add(self, name: str, item: Any) -> None:
        """Append to a list."""
        self.content.setdefault(name, []).append(item)
        self._write()

    def leave_out(self, what: str) -> None:
        """For want of time."""
        print(f"left out for want of time: {what}", file=sys.stderr)
        self.add("left_out", what)

    def beside(self, name: str) -> Path:
        """A file of the run's, `<run>-<step>-<name>`."""
        return self._path.with_name(f"{self._path.stem}-{name}")

    def aside(self, name: str) -> Path:
        """A new folder for the results of a measurement under a tool, which are none."""
        path = self.beside(name)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self) -> None:
        """All that there was time for is in it; prints where it is."""
        self.put(complete=not self.content["left_out"])
        print(self._path)

    def _write(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        temporary.replace(self._path)


class Deadline:
    """So many seconds from now on; without a number, for ever."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Seconds."""
        return float("inf") if self._end is None else self._end - time.monotonic()

    def passed(self) -> bool:
        return self.left() <= 0


class Pace:
    """Whether the time suffices for one more, by what the one nearest in size took before."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._taken: dict[float, float] = {}

    def allows(self, size: float) -> bool:
        """Sizes are in any unit that the time is about proportional to."""
        size = max(size, 1)
        if not self._taken:
            return not self._deadline.passed()
        nearest = min(self._taken, key=lambda other: abs(math.log(other / size)))
        return self._deadline.left() > self._taken[nearest] * max(size / nearest, 1)

    @contextlib.contextmanager
    def timed(self, size: float) -> Iterator[None]:
        """Around the work."""
        started = time.monotonic()
        yield
        size = max(size, 1)
        self._taken[size] = max(self._taken.get(size, 0), time.monotonic() - started)


def parser(description: str | None) -> argparse.ArgumentParser:
    """With the options that every step has."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--seconds", type=float, help="end within them, with what there is by then")
    made.add_argument("--small", action="store_true", help="small sizes, to try the step itself")
    return made


def step(main: Callable[[], int]) -> None:
    """Run a step's main; a failure of dvmsr's is one sentence and its exit code."""
    try:
        sys.exit(main())
    except DvmsrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
