"""What the error boundary of the command lines makes of odd failures, and of signals."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dvmsr.utils.cli.app import run_app

INFER_IN_A_DELETED_FOLDER = """
import os, sys
os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
sys.argv = ["dvmsr-infer", "one.png"]
from dvmsr.runtime.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="keeps the current folder")
def test_a_deleted_current_folder(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", INFER_IN_A_DELETED_FOLDER],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert errors == ["error: the current folder no longer exists; change to another"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EIO, "Input/output error"), "reading or writing failed (Input/output"),
        (OSError("a library's own"), "reading or writing failed (a library's own)"),
        (OSError(errno.ENOSPC, "No space left on device"), "standard output has no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "x.png"), "x.png cannot be used"),
    ],
)
def test_no_operating_system_error_gives_a_traceback(
    error: OSError,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        raise error

    app = typer.Typer()
    app.command()(command)
    monkeypatch.setattr(sys, "argv", ["a command"])
    with pytest.raises(SystemExit) as exit:
        run_app(lambda: app)
    assert exit.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


SIGNAL_IN_A_LOCK = """
import os, signal, threading, time, typer
from concurrent.futures import ThreadPoolExecutor, _base, wait
from dvmsr.utils.cli.app import run_app

leave = _base._AcquireFutures.__exit__
def interrupted(futures, *error):
    _base._AcquireFutures.__exit__ = leave
    os.kill(os.getpid(), signal.{name})
    return leave(futures, *error)
_base._AcquireFutures.__exit__ = interrupted

def command():
    with ThreadPoolExecutor(1) as executor:
        wait([executor.submit(time.sleep, {seconds})])
        print("done")

def build():
    app = typer.Typer()
    app.command()(command)
    return app

run_app(build)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("seconds", [0, 0.3], ids=["goes on", "waits"])
def test_a_signal_leaves_no_lock_locked(name: str, code: int, seconds: float) -> None:
    """It comes where the lock of a future is about to be given back."""
    program = SIGNAL_IN_A_LOCK.format(name=name, seconds=seconds)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20
    )
    assert result.returncode == code
    assert result.stderr == ("interrupted\n" if name == "SIGINT" else "")
    assert result.stdout in ("", "done\n")


SIGNAL_AFTER_A_SIGNAL = """
import os, signal, typer
from dvmsr.utils.cli import app as boundary

def command():
    os.kill(os.getpid(), signal.SIGINT)

def build():
    app = typer.Typer()
    app.command()(command)
    return app

boundary.notice = lambda text: os.kill(os.getpid(), signal.SIGINT)
boundary.run_app(build)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_second_ctrl_c_gives_no_traceback() -> None:
    """It comes when all is in order and the process is about to end."""
    result = subprocess.run(
        [sys.executable, "-c", SIGNAL_AFTER_A_SIGNAL], capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (130, "")


SIGNAL_MADE_ANOTHER = """
import os, signal, typer
from dvmsr.utils.cli.app import run_app

def command():
    try:
        os.kill(os.getpid(), signal.{name})
    except BaseException:
        raise {other}

def build():
    app = typer.Typer()
    app.command()(command)
    return app

run_app(build)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("other", ["SystemExit(1)", "ImportError('half')"])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_exit_code_is_the_signals(name: str, code: int, other: str) -> None:
    """Ray makes the exception another SystemExit, and the import of a library something else."""
    program = SIGNAL_MADE_ANOTHER.format(name=name, other=other)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == code
    assert result.stderr == ("interrupted\n" if name == "SIGINT" else "")
