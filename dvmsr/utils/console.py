"""What is said to a person at a terminal."""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

UNLIMITED_WIDTH = 10_000
_REMEMBERED = 100
"""Warnings; of two files at a time there are fewer."""


def stderr_console() -> Console:
    """A rich console on stderr, for notices and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def stdout_console() -> Console:
    """A rich console on stdout, for tables. It never cuts: a number cut off would be worse than a
    line that wraps."""
    from rich.console import Console

    return Console(width=UNLIMITED_WIDTH, highlight=False)


def notice(text: str) -> None:
    """Print one line to stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print one line to stderr that is a warning."""
    notice(f"warning: {text}")


@contextmanager
def warnings_to(report: Callable[[str], None] = warn) -> Iterator[None]:
    """In the block every Python warning, of every thread, is told to `report`, and to nobody else:
    once, however many frames of a file it is about."""
    told = deque[str](maxlen=_REMEMBERED)

    def tell(message: Warning | str, *_: object, **__: object) -> None:
        text = str(message)
        if text not in told:
            told.append(text)
            report(text)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # of what an interrupt leaves open
        warnings.showwarning = tell
        yield
