"""A bar at a terminal that moves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dvmsr.utils import signals
from dvmsr.utils.console import stderr_console


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar on a terminal's stderr, and the function that moves it on by one, or as many as it is
    given, unless a signal has come."""
    from rich.progress import Progress

    console = stderr_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def advance(steps: int = 1) -> None:
            bar.advance(task, steps)
            signals.check()

        yield advance
