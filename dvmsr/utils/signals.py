"""Ending on SIGINT, SIGTERM and SIGHUP, in one way for all commands.

A signal raises nothing: it is noted, and its child processes are told to end. `check`, which work
calls between its parts, raises `Ended`, so that a command ends where nothing is half done. Where
it does not come to that within `GRACE` seconds, or another signal comes, the process is ended
wherever it is; `temporary` files are removed and `last_words` said even then.

The C library's handler writes to a pipe that a thread reads. So a signal is seen, too, while the
main thread is in a long call that runs no Python.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvmsr.errors import SIGNALLED
from dvmsr.utils import threads

GRACE = 3.0
"""Seconds from a signal until the process ends wherever it is."""
_LOOK = 0.1
"""Seconds between two looks for a signal while one waits."""
_SAME = 0.1
"""Seconds in which several signals are one: a closed terminal, say, sends some."""
_WORDS = 1.5
"""The most seconds that the last words may take; who should read them may have stopped."""
_RECORDED = 0.05
"""Seconds in which a thread that has just finished a file says so."""
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_STOP = 0
"""Ends the thread, in place of a signal's number."""


class Ended(BaseException):
    """The process was told to end; its exit code follows from the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = SIGNALLED + number


finishing = threading.RLock()
"""Held while a file appears under its name: once the last words begin, none but theirs does."""
_temporary: set[Path] = set()
_words: list[Callable[[], None]] = []
_children: set[subprocess.Popen[Any]] = set()
_patient = 0
_hasty = 0
_watch: _Watch | None = None
_thread = threading.local()


@contextmanager
def handled() -> Iterator[None]:
    """In the block signals are noted, and it ends with `Ended` if one came, whatever was made of
    that. Ignored ones (nohup, `command &`) stay ignored. Within another such block, or in another
    thread than the main one, nothing changes.

    Raises:
        DvmsrError: if no thread can be started.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _watch = watch = _Watch()
    try:
        yield
    except BaseException:
        if watch.told:
            raise Ended(watch.told) from None
        raise
    finally:
        watch.close()
        _watch = None
    if watch.told:
        raise Ended(watch.told)


def end_at_once(exit_code: int) -> None:
    """From now on another signal ends the process with that exit code: all is in order already."""
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(exit_code))


def told() -> int:
    """The signal that came first; 0 if none did."""
    return _watch.told if _watch else 0


def check() -> None:
    """
    Raises:
        Ended: if a signal has come, or what the `checking` of this thread raises.
    """
    if number := told():
        raise Ended(number)
    for other in getattr(_thread, "checks", ()):
        other()


@contextmanager
def checking(other: Callable[[], None]) -> Iterator[None]:
    """In the block, `check` in this thread calls that, too: what it raises ends the work where a
    signal would."""
    before: tuple[Callable[[], None], ...] = getattr(_thread, "checks", ())
    _thread.checks = (*before, other)
    try:
        yield
    finally:
        _thread.checks = before


def wait(happened: Callable[[float], object]) -> None:
    """Until something has happened.

    Args:
        happened: waits for it so many seconds at most, and says whether it did.

    Raises:
        Ended: if a signal has come.
    """
    while not happened(_LOOK):
        check()
    check()


@contextmanager
def patience() -> Iterator[None]:
    """A first signal waits for the end of the block, however long that takes."""
    global _patient
    _patient += 1
    try:
        yield
    finally:
        _patient -= 1


@contextmanager
def at_once() -> Iterator[None]:
    """A first signal ends the process wherever it is: nothing in the block is half done but
    `temporary` files.

    Raises:
        Ended: if a signal has come before.
    """
    global _hasty
    _hasty += 1
    try:
        check()
        yield
    finally:
        _hasty -= 1


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A file or folder that is removed at the end of the block, if it is there, or of the
    process."""
    _temporary.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _temporary.discard(path)


@contextmanager
def temporary_folder(within: Path | None = None) -> Iterator[Path]:
    """A new, empty folder that is `temporary`, in a given one or where the system has such."""
    with temporary(
        Path(tempfile.mkdtemp(prefix=".dvmsr-" if within else "dvmsr-", dir=within))
    ) as path:
        yield path


@contextmanager
def last_words(say: Callable[[], None]) -> Iterator[None]:
    """What is called, in another thread, if the process ends in the middle of the block."""
    _words.append(say)
    try:
        yield
    finally:
        _words.remove(say)


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A child process, in a group of its own, which a signal or an exception ends.

    Raises:
        DvmsrError: if no process can be started.
    """
    with threads.starting():
        started = subprocess.Popen(
            command, text=True, errors="replace", start_new_session=True, **options
        )
    with started as process:
        _children.add(process)
        try:
            if told():
                _kill(process, signal.SIGTERM)
            yield process
        except BaseException:
            _kill(process, signal.SIGTERM)
            raise
        finally:
            _children.discard(process)


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` with captured text, as a `child`.

    Raises:
        Ended: if a signal has come.
        DvmsrError: if no process can be started.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with child(command, **pipes, **options) as process:
        out, err = process.communicate()
    check()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


class _Watch:
    """The handlers, and the thread that sees every signal."""

    def __init__(self) -> None:
        self.told = 0
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        self._before = {number: signal.getsignal(number) for number in numbers}
        self._before = {n: usual for n, usual in self._before.items() if usual != signal.SIG_IGN}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        try:
            with threads.starting():
                self._thread.start()
        except BaseException:
            os.close(self._reader)
            os.close(self._writer)
            raise
        self._usual_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._before:
            signal.signal(number, self._note)

    def close(self) -> None:
        for number, usual in self._before.items():
            signal.signal(number, usual)
        signal.set_wakeup_fd(self._usual_fd)
        os.write(self._writer, bytes([_STOP]))
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _note(self, number: int, frame: object) -> None:
        self.told = self.told or number

    def _run(self) -> None:
        first = float("inf")
        while True:
            left = GRACE + first - time.monotonic()
            wait = None if left == float("inf") else max(left, _LOOK)
            ready, _, _ = select.select([self._reader], [], [], wait)
            for number in os.read(self._reader, 64) if ready else b"":
                if number == _STOP:
                    return
                if number not in self._before:
                    continue
                now = time.monotonic()
                if first == float("inf"):
                    first, self.told = now, self.told or number
                    for process in list(_children):
                        _kill(process, signal.SIGTERM)
                    if _hasty and not _patient:
                        self._end()
                elif now - first > _SAME:
                    self._end()
            if not ready and not _patient:
                self._end()

    def _end(self) -> None:
        words = threading.Thread(target=self._speak, daemon=True)
        try:
            words.start()
        except RuntimeError:  # no thread is left
            self._speak()
        else:
            words.join(_WORDS)
        os._exit(SIGNALLED + self.told)

    def _speak(self) -> None:
        for process in list(_children):
            _kill(process, signal.SIGKILL)
        finishing.acquire(timeout=_WORDS / 2)
        for path in list(_temporary):
            _remove(path)
        time.sleep(_RECORDED)
        for say in reversed(_words):
            say()
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(2, b"\x1b[?25h")  # a progress display hides the cursor
        if self.told == signal.SIGINT:
            os.write(2, b"interrupted\n")


def _kill(process: subprocess.Popen[Any], number: int) -> None:
    with suppress(OSError):
        os.killpg(process.pid, number)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
