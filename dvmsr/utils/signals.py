"""Signals that end a run in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that the first SIGINT, SIGTERM or SIGHUP is put into; a second one acts as usual.

    Ignored ones (nohup, `command &`) stay ignored.
    """
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    before = {number: signal.getsignal(number) for number in numbers if number is not None}
    before = {number: usual for number, usual in before.items() if usual != signal.SIG_IGN}

    def on_signal(number: int, frame: object) -> None:
        stop.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)
