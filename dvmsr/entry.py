"""The console scripts: each imports its command line, which then runs.

Until that is imported, a signal ends the process at once: an exception in the middle of an import
would show a traceback, or be taken for a missing module.
"""

import os

_SIGNALLED = 128

try:
    import signal
    from importlib import import_module
except KeyboardInterrupt:
    os._exit(_SIGNALLED + 2)

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def dvmsr() -> None:
    """`dvmsr`."""
    _run("dvmsr.cli")


def dvmsr_export() -> None:
    """`dvmsr-export`."""
    _run("dvmsr.export.cli")


def dvmsr_infer() -> None:
    """`dvmsr-infer`."""
    _run("dvmsr.runtime.cli")


def _run(module: str) -> None:
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    usual = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if usual[number] != signal.SIG_IGN:  # as Ctrl-C in `command &`
            signal.signal(number, lambda number, _: os._exit(_SIGNALLED + number))
    main = import_module(module).main
    for number in numbers:
        signal.signal(number, usual[number])
    main()
