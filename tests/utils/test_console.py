from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvmsr.utils import console
from dvmsr.utils.console import printable, stdout_console, warnings_to

EVIL = "\x1b]0;owned\x07\x9b31m\r\n\u202egnp.exe\u2028\udcff"
SHOWN = r"\x1b]0;owned\x07\x9b31m\r\n\u202egnp.exe\u2028\udcff"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable(f"a{EVIL}ü日本.png") == f"a{SHOWN}ü日本.png"


@given(st.text())
def test_nothing_else_is(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() or {c for c in shown if not c.isprintable()} <= {
        c for c in text if not c.isprintable()
    }
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)
    if text.isprintable():
        assert shown == text


def test_tables_and_lines_are(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table("name")
    table.add_row(EVIL)
    stdout_console().print(table)
    console.say(f"a: {EVIL}\nb")
    console.notice(EVIL)
    out, err = capsys.readouterr()
    assert out.count(SHOWN.replace(r"\n", r"\n")) == 1 and "\x1b" not in out + err
    assert err == f"{SHOWN}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("program", ["infer", "parity", "info"])
def test_a_name_that_would_command_the_terminal(
    program: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("names")
    name = "a\x1b[2J\x1b]52;c;Y2F0\x07\nb.png"
    (folder / name).write_bytes(b"no picture")
    main = {"infer": "dvmsr.runtime.cli"}.get(program, "dvmsr.cli")
    arguments = {
        "infer": [name],
        "parity": ["parity", name, "student", "--images", name],
        "info": ["info", name],
    }[program]
    code = f"from {main} import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True)
    said = ran.stdout + ran.stderr
    assert ran.returncode
    assert rb"a\x1b[2J\x1b]52;c;Y2F0\x07\nb.png" in said
    assert b"\x1b" not in said and b"\x07" not in said


def test_a_path_for_a_script_is_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.data("a\tb")
    assert capsys.readouterr().out == "a\tb\n"


@pytest.mark.skipif(sys.platform == "win32", reason="opens a terminal of Unix")
def test_a_path_at_a_terminal_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        console.data("a\x1b[2Jb")
        monkeypatch.undo()
    assert os.read(ours, 100) == b"a\\x1b[2Jb\r\n"
    os.close(ours)


def test_a_warning_is_told_once_from_every_thread() -> None:
    told: list[str] = []

    def warn() -> None:
        for number in range(60):
            warnings.warn("p.gif: the same", stacklevel=1)
            warnings.warn(f"q.gif: {number % 3}", stacklevel=1)

    with warnings_to(told.append):
        threads = [threading.Thread(target=warn) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(told) <= 8
    assert set(told) == {"p.gif: the same", "q.gif: 0", "q.gif: 1", "q.gif: 2"}


def test_data_where_standard_output_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    console.data("nobody reads it")
