"""The phases of an engine's build on the terminal."""

from __future__ import annotations

from typing import Any

from dvmsr.utils.console import printable, stderr_console


class BuildDisplay:
    """A bar per phase that TensorRT is in, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = stderr_console()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._depths: dict[str, int] = {}

    def __enter__(self) -> BuildDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Take note of a `phase`, `step` or `finish` of `worker`."""
        name = event["name"]
        if event["event"] == "phase":
            self._close(name)
            depth = self._depths.get(event["parent"] or "", -1) + 1
            self._depths[name] = depth
            self._tasks[name] = self._progress.add_task(
                printable("  " * depth + name), total=event["steps"]
            )
        elif event["event"] == "step" and name in self._tasks:
            self._progress.update(self._tasks[name], completed=event["step"] + 1)
        elif event["event"] == "finish":
            self._close(name)

    def _close(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
