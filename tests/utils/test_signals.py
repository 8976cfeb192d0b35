"""Which signals end a run, and how often."""

from __future__ import annotations

import signal

import pytest

from dvmsr.utils.signals import stop_signals


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ignored_signals_stay_ignored_and_others_stop(name: str) -> None:
    number = getattr(signal, name)
    usual = signal.getsignal(number)
    try:
        signal.signal(number, signal.SIG_IGN)
        with stop_signals() as stop:
            signal.raise_signal(number)
            assert not stop
        signal.signal(number, signal.default_int_handler)
        with stop_signals() as stop:
            signal.raise_signal(number)
            assert stop == [number]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    finally:
        signal.signal(number, usual)
