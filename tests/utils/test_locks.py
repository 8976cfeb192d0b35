"""Locks between processes: refused, waited for, given up by the dead, and where there are none."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from processes import LIMIT, next_line

from dvmsr.errors import UsageError
from dvmsr.utils import locks
from dvmsr.utils.locks import hold

fcntl = pytest.importorskip("fcntl")

PROGRAM = """
import sys, typer
from dvmsr.utils.cli.app import run_app
from dvmsr.utils.locks import hold

def command(path: str):
    with open(path, "w") as file:
        hold(file, lambda: print("waits", flush=True))
        print("holds", flush=True)
        sys.stdin.read()

def build():
    app = typer.Typer()
    app.command()(command)
    return app

run_app(build)
"""


@contextmanager
def other(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the file until its standard input ends."""
    command = [sys.executable, "-c", PROGRAM, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_who_may_not_wait_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with other(path) as process, path.open("w") as file:
        assert next_line(process, process.stdout) == "holds\n"
        with pytest.raises(UsageError, match="name another"):
            hold(file, UsageError("name another"))
        process.communicate("", timeout=LIMIT)
        hold(file, UsageError("name another"))


@pytest.mark.parametrize("killed", [False, True])
def test_who_waits_says_so_once_and_comes_next(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "lock"
    with other(path) as first:
        assert next_line(first, first.stdout) == "holds\n"
        with other(path) as second:
            assert next_line(second, second.stdout) == "waits\n"
            if killed:
                first.kill()
            first.communicate("", timeout=LIMIT)
            assert second.communicate("", timeout=LIMIT) == ("holds\n", "")
            assert second.returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_who_waits(tmp_path: Path, number: int, code: int) -> None:
    path = tmp_path / "lock"
    with path.open("w") as file:
        hold(file, UsageError("name another"))
        with other(path) as process:
            assert next_line(process, process.stdout) == "waits\n"
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (code, "")
    assert err == ("interrupted\n" if number == signal.SIGINT else "")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unsupported(*arguments: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with (tmp_path / "lock").open("w") as file:
        hold(file, UsageError("name another"))
        hold(file, pytest.fail)


def test_a_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    with (tmp_path / "lock").open("w") as file, (tmp_path / "lock").open("w") as again:
        hold(file, pytest.fail)
        hold(again, pytest.fail)
