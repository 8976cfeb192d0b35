"""What is said to a person at a terminal."""

from __future__ import annotations

import re
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

UNLIMITED_WIDTH = 10_000
_COMMANDS = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
"""Control characters, marks that turn the direction of writing, separators of lines, and what
stands for bytes of a name that are no text."""
_thread = threading.local()
_REMEMBERED = 100
"""Warnings; of two files at a time there are fewer."""


def printable(text: str) -> str:
    """One line that does to a terminal nothing but show: what would move the cursor, colour, turn
    the direction or end the line, in the name of a file, say, is written as Python escapes it."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def stderr_console() -> Console:
    """A rich console on stderr, for notices and progress."""
    return _console(stderr=True, soft_wrap=True)


def stdout_console() -> Console:
    """A rich console on stdout, for tables. It never cuts: a number cut off would be worse than a
    line that wraps."""
    return _console(width=UNLIMITED_WIDTH)


def _console(**options: Any) -> Console:
    """One that shows strings as `printable` does."""
    from rich.console import Console
    from rich.text import Text

    class Printable(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    return Printable(highlight=False, **options)


def say(text: str) -> None:
    """Print lines for a person to stdout."""
    print("\n".join(map(printable, text.split("\n"))))


def data(value: object) -> None:
    """Print a line to stdout that a script may read: at a terminal as `printable` does. Where it is
    closed, nobody reads it."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    print(printable(str(value)) if terminal else value)


def notice(text: str) -> None:
    """Print one line to stderr, in one piece, as threads may print at once."""
    print(f"{printable(text)}\n", end="", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print one line to stderr that is a warning."""
    notice(f"warning: {text}")


@contextmanager
def prints_aside() -> Iterator[None]:
    """In the block, what others' code prints goes to stderr: stdout is for what a command found."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def about(name: str) -> Iterator[None]:
    """In the block, what Pillow warns of in this thread is about that file, whose name it does not
    tell."""
    before, _thread.name = getattr(_thread, "name", None), name
    try:
        yield
    finally:
        _thread.name = before


@contextmanager
def warnings_to(report: Callable[[str], None] = warn) -> Iterator[None]:
    """In the block every Python warning, of every thread, is told to `report`, and to nobody else:
    once, however many frames of a file it is about."""
    told = deque[str](maxlen=_REMEMBERED)

    def tell(message: Warning | str, category: object, filename: str, *_: object) -> None:
        text = " ".join(str(message).split())
        name = getattr(_thread, "name", None)
        if name is not None and "PIL" in Path(filename).parts:
            text = f"{name}: {text.rstrip('.')}"
        if text not in told:
            told.append(text)
            report(text)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # of what an interrupt leaves open
        warnings.showwarning = tell  # type: ignore[assignment]  # all that is called is positional
        yield
