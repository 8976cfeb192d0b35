"""How a run tells of its progress: a bar on a terminal, plain lines elsewhere, and a JSONL log."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn

from dvmsr.errors import DvmsrError
from dvmsr.utils import signals
from dvmsr.utils.atomic import write_atomically
from dvmsr.utils.console import stderr_console
from dvmsr.utils.json_text import parse
from dvmsr.utils.memory import peak_resident
from dvmsr.utils.paths import exists, unreadable

LONGEST = 1e10
"""Seconds left that are told."""


class RunLog:
    """One JSON object per line: losses (`step`, `seconds`, `loss` and its parts, `lr`,
    `steps_per_second`) and validations (`step`, `seconds`, `psnr_y`).

    Args:
        path: made if missing.
        last_step: rows of later steps are dropped: a resumed run writes them again.

    Raises:
        DvmsrError: if it cannot be written; as does `append`.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        try:
            rows = path.read_bytes().splitlines() if exists(path) else []
        except OSError as error:
            raise unreadable(path, error) from None
        kept = b"".join(row + b"\n" for row in rows if _step(row) <= last_step)
        write_atomically(path, kept, overwrite=True)

    def append(self, row: dict[str, Any]) -> None:
        """Add one row."""
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise DvmsrError(
                f"{self.path} cannot be written ({error.strerror}); make room and add --resume"
            ) from None


def _step(row: bytes) -> float:
    try:
        return float(parse(row)["step"])
    except (ValueError, TypeError, KeyError, OverflowError):  # cut off by a crash, or not ours
        return math.inf


def memory_in_use(device: str) -> str:
    """`  2.1 GiB`: the most that was in use so far, on the GPU or by the process; empty where that
    is not known."""
    on_gpu = device.startswith("cuda")
    most = torch.cuda.max_memory_allocated(device) if on_gpu else peak_resident()
    return "" if most is None else f"  {most / 2**30:.1f} GiB"


def progress_line(
    step: int, loss: float, psnr: float | None, speed: float, left: float, device: str
) -> str:
    """How a run does, for its user.

    Args:
        psnr: the last score in dB, if there was one.
        speed: patches per second.
        left: seconds.
        device: where it computes.
    """
    score = "" if psnr is None else f"  PSNR-Y {psnr:.3f} dB"
    left = min(left, LONGEST)
    return (
        f"step {step}  loss {loss:.5f}{score}  {speed:.1f} img/s"
        f"  ETA {timedelta(seconds=round(left))}{memory_in_use(device)}"
    )


class Screen:
    """Progress on stderr; a context manager. `total` and `update` count any unit.

    Where there is a bar, it stays below the lines that are written to stderr meanwhile.
    """

    def __init__(self, title: str, total: float | None) -> None:
        self.console = stderr_console()
        self.live = self.console.is_terminal
        self.bar = Progress(
            BarColumn(bar_width=10),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[text]}", markup=False),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self.task = self.bar.add_task(title, total=total, text=title)

    def __enter__(self) -> Screen:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, completed: float, text: str) -> None:
        self.bar.update(self.task, completed=completed, text=text)

    def advance(self) -> None:
        self.bar.advance(self.task)
        signals.check()
