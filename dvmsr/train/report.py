"""How a run tells of its progress: a bar on a terminal, plain lines elsewhere, and a JSONL log."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dvmsr.cli_support import notice, stderr_console
from dvmsr.errors import DvmsrError


class RunLog:
    """One JSON object per line: losses (`step`, `seconds`, `loss`, `lr`, `steps_per_second`) and
    validations (`step`, `seconds`, `psnr_y`). Rows past the step a run resumes from are dropped."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        self.path = path
        rows = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # cut off by a crash
                    continue
                if row["step"] <= resumed_step:
                    rows.append(line + "\n")
        path.write_text("".join(rows))

    def append(self, row: dict[str, Any]) -> None:
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise DvmsrError(f"{self.path} could not be written ({error})") from None


class Screen:
    """Progress on stderr; a context manager. `total` and `update` count any unit."""

    def __init__(self, title: str, total: float | None) -> None:
        self.console = stderr_console()
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self.task = self.bar.add_task(title, total=total, text="")

    def __enter__(self) -> Screen:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def update(self, completed: float, text: str = "") -> None:
        self.bar.update(self.task, completed=completed, text=text)

    def advance(self) -> None:
        self.bar.advance(self.task)

    def line(self, text: str) -> None:
        """A line that stays."""
        if self.live:
            self.bar.console.print(text, markup=False)
        else:
            notice(text)
