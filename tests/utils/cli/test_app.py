"""What the error boundary of the command lines makes of odd failures, and of signals."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dvmsr.utils.cli.app import run_app
from dvmsr.utils.threads import NO_MORE

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
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable", "nvcc"), NO_MORE),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), NO_MORE),
        (RuntimeError("can't start new thread"), NO_MORE),
    ],
)
def test_no_operating_system_error_gives_a_traceback(
    error: Exception,
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
