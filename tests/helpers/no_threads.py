"""A machine on which no further thread can be started, as `ulimit -u` makes it."""

from __future__ import annotations

import threading

import pytest


def refuse_threads(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """All but so many of those that are started from now on."""
    left = [after]
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
