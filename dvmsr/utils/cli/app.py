"""What the three command lines share: the error boundary and the consoles.

Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import _thread
import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from dvmsr.errors import INTERRUPTED, SIGNALLED, DvmsrError, UsageError, explain
from dvmsr.utils.console import notice

if TYPE_CHECKING:
    import typer


def run_app(build: Callable[[], typer.Typer]) -> None:
    """Run a typer application and turn every expected failure into one line and an exit code.

    Args:
        build: makes the application; called late so that `--help` imports little.
    """
    import typer

    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that are no text
    try:
        if "" in sys.argv[1:]:  # an unset shell variable; as a path it would mean this folder
            raise UsageError("an argument is empty; name a file or leave it out")
        app = build()
        app.pretty_exceptions_enable = False
        with _orderly_termination():
            exit_code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        exit_code = INTERRUPTED
    except DvmsrError as error:
        notice(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:
            notice(f"error: {explain(error, error.filename)}")
            sys.exit(DvmsrError.exit_code)
        notice(f"error: {_explain_nameless(error)}")
        if sys.stdout is sys.__stdout__ and sys.stdout is not None:  # it is flushed again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DvmsrError.exit_code)
    except MemoryError:
        notice("error: there is not enough memory; end other programs or take smaller input")
        sys.exit(DvmsrError.exit_code)
    except typer.Abort:  # what older versions of typer make of Ctrl-C
        exit_code = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "show"):
            raise
        _show_usage_error(error)  # typer's own; its class has moved between versions
        sys.exit(UsageError.exit_code)
    if exit_code == INTERRUPTED:
        notice("interrupted")
    sys.exit(exit_code)


def _explain_nameless(error: OSError) -> str:
    """Of a failure that tells no file."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        return "the current folder no longer exists; change to another"
    if error.errno == errno.ENOSPC:
        return "standard output has no space left; make room or send it elsewhere"
    return f"reading or writing failed ({error.strerror or error}); check standard output and disks"


def _show_usage_error(error: Any) -> None:
    """One line; the help of a command that was given nothing is shown as it is."""
    if type(error).__name__ == "NoArgsIsHelpError" or getattr(error, "ctx", None) is None:
        error.show()
        return
    text = " ".join(error.format_message().split()).rstrip(".")
    notice(f"error: {text[:1].lower()}{text[1:]}; see {error.ctx.command_path} --help")


@contextmanager
def _orderly_termination() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP, unless ignored (nohup), raise an exception in the block.

    So every `finally` runs and no temporary file stays behind. For SIGINT it is KeyboardInterrupt,
    for the others SystemExit, once: a closed terminal sends several. The block ends with it even
    where an import, or Ray, has turned it into another exception. Where a lock could stay locked,
    it is raised a moment later. After the block, when all is in order, another Ctrl-C ends the
    process at once.
    """
    caught = [
        number
        for name in ("SIGTERM", "SIGHUP")
        if (number := getattr(signal, name, None)) and signal.getsignal(number) == signal.SIG_DFL
    ]
    ending: BaseException | None = None
    moment = _Moment()

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        if moment.is_bad(number, frame):
            return
        before[signal.SIGINT] = lambda *_: os._exit(INTERRUPTED)
        ending = KeyboardInterrupt()
        raise ending

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        if moment.is_bad(number, frame):
            return
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        ending = SystemExit(SIGNALLED + number)
        raise ending

    before: dict[int, Any] = {number: signal.signal(number, terminate) for number in caught}
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except (Exception, SystemExit):
        if ending is not None:
            raise ending from None
        raise
    finally:
        try:
            moment.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Moment:
    """Tells when a signal must not raise: while Python code of a lock runs, which would stay locked
    and stop another thread, and so this process, for ever; or where Python would print and forget
    it, at the end of a thread. The signal is then sent again.

    A thread that is seen twice at one place there is not running, but waiting, which can be ended.
    """

    _MODULES = (
        *("threading", "concurrent.futures._base", "concurrent.futures.thread"),
        *("weakref", "_weakrefset"),
    )
    _LATER = 0.002
    """Seconds."""

    def __init__(self) -> None:
        self._place: tuple[CodeType, int] | None = None
        self._sent_again = False

    def is_bad(self, number: int, frame: FrameType | None) -> bool:
        """Whether this is such a moment; called by the handler of a signal."""
        self._sent_again = False
        place = None if frame is None else (frame.f_code, frame.f_lasti)
        outer = frame
        while outer is not None and outer.f_globals.get("__name__") not in self._MODULES:
            outer = outer.f_back
        if outer is None or place == self._place or not hasattr(signal, "pthread_kill"):
            return False
        self._place = place
        self._sent_again = True
        _thread.start_new_thread(self._send_again, (number, threading.get_ident()))
        return True

    def wait(self) -> None:
        """Until no signal is on its way."""
        while self._sent_again:
            time.sleep(self._LATER)

    def _send_again(self, number: int, thread: int) -> None:
        time.sleep(self._LATER)
        signal.pthread_kill(thread, number)
