"""Modules of this package as programs, in a new Python that ends with the process that starts it,
however that ends."""

import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_LOOK = 1.0
"""Seconds between two looks for the other process, where the system does not watch it."""


def command(module: str, *arguments: str) -> list[str]:
    """What runs a module with arguments, from the same import path as this process.

    Unlike `python -m`, which imports the files of the current folder before those of libraries.
    """
    path = [entry for entry in sys.path if isinstance(entry, str)]
    program = (
        f"import sys; sys.path[:] = {path!a}; import runpy; "
        f"from {__name__} import end_with; end_with({os.getpid()}); "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", program, *arguments]


def end_with(parent: int) -> None:
    """Have this process killed when its parent, of that number, ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)
