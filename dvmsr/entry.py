"""The console scripts: each imports its command line, which then runs.

Until that is imported, an interrupt ends the process at once: an exception in the middle of an
import would show a traceback, or be taken for a missing module.
"""

import os

_INTERRUPTED = 130

try:
    import signal
    from importlib import import_module
except KeyboardInterrupt:
    os._exit(_INTERRUPTED)


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
    usual = signal.getsignal(signal.SIGINT)
    if usual == signal.default_int_handler:  # not where Ctrl-C is ignored, as in `command &`
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    main = import_module(module).main
    signal.signal(signal.SIGINT, usual)
    main()
