"""What a person at a terminal sees while pictures are being enlarged."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from dvmsr.utils import signals
from dvmsr.utils.console import printable, stderr_console

if TYPE_CHECKING:
    from rich.console import Console

DELAY = 1.0
"""Seconds before anything moves; shorter work shows only its results."""


class ProgressDisplay:
    """Lines on stderr, and below them, on a terminal and after a second, a moving display.

    A bar with the image's name and size, the time elapsed, and, for several images, their number
    and the input pixels per second. For one image the bar shows the rows that are done, as often
    as a strip of them is; a video shows its frames and the time that is left.
    """

    def __init__(self, images: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._console: Console = stderr_console()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *(MofNCompleteColumn() for _ in range(images > 1)),
            TimeElapsedColumn(),
            TextColumn("{task.fields[speed]}"),
            console=self._console,
            transient=True,
        )
        self._images = images
        self._name = ""
        self._began = time.monotonic()
        self._task = self._progress.add_task("", total=images if images > 1 else None, speed="")
        self._timer = threading.Timer(DELAY, self._progress.start)

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._timer.ident is not None:
            self._timer.join()
        if self._progress.live.is_started:
            self._progress.stop()

    def begin(self, name: str, width: int, height: int) -> None:
        """Name the image that is being processed, and its size."""
        self._name = printable(f"{name} {width}x{height}")
        self._progress.update(self._task, description=self._name)

    def rows(self, done: int, height: int) -> None:
        """Tell how many rows of the image that is being processed are done, unless a signal has
        come."""
        signals.check()
        if self._images == 1:
            self._progress.update(self._task, total=height, completed=done)
        else:
            part = f"{self._name} {done * 100 // height} %"
            self._progress.update(self._task, description=part)

    def frames(self, done: int, total: int | None, before: int) -> None:
        """Tell how many frames of the video that is being processed are done, of about how many,
        and how many of these were before it began, unless a signal has come."""
        signals.check()
        if done == before:
            self._began = time.monotonic()
        total = None if total is None else max(done, total)
        part = f"frame {done}" if total is None else f"frame {done} of {total}"
        if total is not None and done > before:
            seconds = (time.monotonic() - self._began) * (total - done) / (done - before)
            part += f", {timedelta(seconds=round(seconds))} left"
        if self._images == 1:
            self._progress.update(self._task, total=total, completed=done, speed=part)
        else:
            self._progress.update(self._task, description=f"{self._name} {part}")

    def advance(self, speed: str) -> None:
        """Count one image as done; `speed` is that of all so far."""
        self._progress.update(self._task, advance=1, speed=speed)

    def line(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(printable(text), markup=False, emoji=False)
