"""Waiting for other processes and threads, never for ever."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO

LIMIT = 120
"""Seconds after which what is waited for does not come."""


def next_line(process: subprocess.Popen[str], stream: IO[str] | None) -> str:
    """What it says next on one of its pipes; nothing if it is killed for saying nothing."""
    assert stream is not None
    timer = threading.Timer(LIMIT, process.kill)
    timer.start()
    try:
        return stream.readline()
    finally:
        timer.cancel()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what has no event, such as a file of another process."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.005)
