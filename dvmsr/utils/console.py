"""What is said to a person at a terminal."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

UNLIMITED_WIDTH = 10_000


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


@contextmanager
def warnings_as_notices() -> Iterator[None]:
    """Every Python warning in the block becomes a line on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # of what an interrupt leaves open
        warnings.showwarning = lambda message, *_: notice(f"warning: {message}")
        yield
