"""Ending on a signal: noted, passed on to children, and enforced where nothing listens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from no_threads import refuse_threads

from dvmsr.errors import DvmsrError
from dvmsr.utils import signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
LIMIT = 5.0
"""Seconds within which a command must end."""


def started(body: str, folder: Path) -> subprocess.Popen[str]:
    """A command of its own whose body prints `ready` when it waits for the signal."""
    program = (
        "import os, signal, sys, threading, time, typer\n"
        "from pathlib import Path\n"
        "from dvmsr.utils import signals\n"
        "from dvmsr.utils.atomic import replacing\n"
        "from dvmsr.utils.cli.app import run_app\n"
        "def ready(): print('ready', flush=True)\n"
        f"def command():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        "def build():\n    app = typer.Typer()\n    app.command()(command)\n    return app\n"
        "run_app(build)\n"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen[str], name: str) -> tuple[str, str, float]:
    """What it printed after the signal, and the seconds that it took; its exit code is right."""
    start = time.monotonic()
    process.send_signal(getattr(signal, name))
    process.wait(30)  # nobody reads what it prints until then
    seconds = time.monotonic() - start
    assert process.returncode == 128 + getattr(signal, name)
    return *process.communicate(), seconds


@pytest.mark.parametrize("name", NAMES)
def test_ignored_signals_stay_ignored_and_others_are_noted(name: str) -> None:
    number = getattr(signal, name)
    usual = signal.getsignal(number)
    try:
        signal.signal(number, signal.SIG_IGN)
        with signals.handled():
            signal.raise_signal(number)
            assert not signals.told()
        signal.signal(number, signal.SIG_DFL)
        with pytest.raises(signals.Ended) as end, signals.handled(), signals.handled():
            signal.raise_signal(number)
            assert signals.told() == number
            with pytest.raises(signals.Ended):
                signals.check()
        assert end.value.exit_code == 128 + number
        assert not signals.told()
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, usual)


@pytest.mark.parametrize("error", [SystemExit(1), ImportError("half"), ValueError()])
def test_whatever_is_made_of_a_signal_it_ends_as_told(error: BaseException) -> None:
    """Ray makes it another exception, a child that is ended a failure."""
    with pytest.raises(signals.Ended), signals.handled():
        signal.raise_signal(signal.SIGTERM)
        raise error


@pytest.mark.parametrize("name", NAMES)
def test_work_that_looks_ends_at_once(tmp_path: Path, name: str) -> None:
    body = """
    with replacing(Path("p.png"), False) as path:
        path.write_bytes(b"half")
        ready()
        while True:
            time.sleep(0.01)
            signals.check()
    """
    out, err, seconds = ended(started(body, tmp_path), name)
    assert (out, err) == ("", "interrupted\n" if name == "SIGINT" else "")
    assert seconds < signals.GRACE / 2
    assert not list(tmp_path.iterdir())


WAITS = {
    "Python": "time.sleep(60)",
    "a lock that is never given back": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a call without Python": "import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)",
    "a reader that has stopped": "while True: os.write(1, bytes(1 << 20))",
    "swallowed": """
while True:
    try:
        time.sleep(0.1)
        signals.check()
    except BaseException:
        pass
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("wait", WAITS)
def test_what_does_not_look_is_ended_all_the_same(tmp_path: Path, wait: str) -> None:
    """Its temporary files are removed and its last words said."""
    body = f"""
    def words(): os.write(2, b"last words\\n")
    with signals.last_words(words), replacing(Path("p.png"), False) as path:
        with signals.temporary_folder(Path()) as folder:
            path.write_bytes(b"half")
            (folder / "more").write_bytes(b"half")
            ready()
{textwrap.indent(WAITS[wait], " " * 12)}
    """
    _, err, seconds = ended(started(body, tmp_path), "SIGTERM")
    assert err == "last words\n"
    assert seconds + 0.2 >= signals.GRACE and seconds < LIMIT
    assert not list(tmp_path.iterdir())


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    process = started("ready(); time.sleep(60)", tmp_path)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)  # what comes sooner counts as the same
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert time.monotonic() - start < signals.GRACE - 1


def test_signals_of_a_closing_terminal_are_one(tmp_path: Path) -> None:
    body = """
    ready()
    while not signals.told():
        time.sleep(0.01)
    time.sleep(0.5)
    print("in good order", flush=True)
    """
    process = started(body, tmp_path)
    for name in ("SIGHUP", "SIGTERM", "SIGHUP"):
        process.send_signal(getattr(signal, name))
    out, _ = process.communicate(timeout=30)
    assert out == "in good order\n"
    assert process.returncode in (128 + signal.SIGHUP, 128 + signal.SIGTERM)


@pytest.mark.parametrize("wait", [name for name in WAITS if name != "a reader that has stopped"])
def test_where_nothing_is_half_done_a_first_signal_ends_at_once(tmp_path: Path, wait: str) -> None:
    body = f"""
    with replacing(Path("p.png"), False) as path, signals.at_once():
        path.write_bytes(b"half")
        ready()
{textwrap.indent(WAITS[wait], " " * 8)}
    """
    _, err, seconds = ended(started(body, tmp_path), "SIGINT")
    assert err == "interrupted\n"
    assert seconds < signals.GRACE / 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_patience_lets_work_come_to_its_end(tmp_path: Path) -> None:
    body = f"""
    with signals.patience():
        ready()
        time.sleep({signals.GRACE + 1})
        print("done", flush=True)
    signals.check()
    """
    out, _, seconds = ended(started(body, tmp_path), "SIGTERM")
    assert out == "done\n" and seconds < signals.GRACE + 3


@pytest.mark.parametrize("thread", [False, True], ids=["main thread", "other thread"])
def test_children_end_with_their_own(tmp_path: Path, thread: bool) -> None:
    """At once, as does what they have started, wherever the child is waited for."""
    body = f"""
    def wait():
        signals.run(["sh", "-c", "sleep 60 & echo $! > pid; echo; wait"])
    ready()
    if {thread}:
        worker = threading.Thread(target=wait)
        worker.start()
        worker.join()
    else:
        wait()
    """
    process = started(body, tmp_path)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    *_, seconds = ended(process, "SIGTERM")
    assert seconds < signals.GRACE / 2
    pid = int((tmp_path / "pid").read_text())
    for _ in range(500):
        if not Path(f"/proc/{pid}/stat").exists():
            break
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    else:
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the child's child still runs")


def test_run_gives_what_a_child_prints() -> None:
    done = signals.run([sys.executable, "-c", "import sys; print('a'); sys.exit('b')"])
    assert (done.returncode, done.stdout, done.stderr) == (1, "a\n", "b\n")


def test_without_a_thread_nothing_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = [signal.getsignal(getattr(signal, name)) for name in NAMES]
    refuse_threads(monkeypatch)
    with pytest.raises(DvmsrError, match="no further thread"), signals.handled():
        raise AssertionError("the block began")
    assert [signal.getsignal(getattr(signal, name)) for name in NAMES] == usual
    assert signals.told() == 0


def test_a_child_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(DvmsrError, match="no further thread or process"):
        signals.run(["true"])


def test_a_threads_own_check_ends_its_work_alone() -> None:
    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    with signals.checking(stop):
        with pytest.raises(Stopped):
            signals.check()
        with pytest.raises(Stopped):
            signals.wait(lambda seconds: False)
        with ThreadPoolExecutor(1) as other:
            other.submit(signals.check).result()
    signals.check()
