"""`python -m dvmsr.compat`: scripts and modules run as with plain python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import torch
from helper import NAME
from mamba_ssm import Mamba
print(NAME, sys.argv, __name__, __file__, Mamba(8)(torch.randn(1, 3, 8)).shape)
if "fail" in sys.argv:
    raise KeyError("missing")
sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("scripts", "scripts/package"):
        (tmp_path / name).mkdir()
    (tmp_path / "scripts" / "train.py").write_text(SCRIPT)
    (tmp_path / "scripts" / "helper.py").write_text("NAME = 'helper'\n")
    (tmp_path / "scripts" / "package" / "__init__.py").write_text("")
    (tmp_path / "scripts" / "package" / "train.py").write_text(SCRIPT)
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvmsr.compat", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_a_script(folder: Path) -> None:
    done = run(folder, "scripts/train.py", "--epochs", "2")
    assert done.returncode == 7, done.stderr
    argv = ["scripts/train.py", "--epochs", "2"]
    assert done.stdout == f"helper {argv} __main__ scripts/train.py torch.Size([1, 3, 8])\n"
    assert done.stderr == ""


@pytest.mark.slow
def test_a_module(folder: Path) -> None:
    done = run(folder / "scripts", "-m", "package.train", "x")
    assert done.returncode == 7, done.stderr
    path = os.path.join(folder, "scripts", "package", "train.py")  # noqa: PTH118
    assert done.stdout == f"helper {[path, 'x']} __main__ {path} torch.Size([1, 3, 8])\n"


@pytest.mark.slow
def test_a_traceback_begins_in_the_script(folder: Path) -> None:
    done = run(folder, "scripts/train.py", "fail")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith('  File "')
    assert "scripts/train.py" in lines[1]
    assert lines[-1] == "KeyError: 'missing'"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "usage:"),
        (["-m"], "usage:"),
        (["-x", "train.py"], "usage:"),
        (["nowhere.py"], "nowhere.py does not exist"),
        (["scripts"], "scripts is a folder without a __main__.py; name a script in it"),
        (["-m", "nowhere"], "there is no module nowhere; check the name"),
        (["-m", "nowhere.train"], "there is no module nowhere.train; check the name"),
        (["-m", "json.nowhere"], "there is no module json.nowhere; check the name"),
        (["-m", "mamba_ssm.nowhere"], "there is no module mamba_ssm.nowhere; check the name"),
        (["-m", "scripts/train.py"], "scripts/train.py is a file; leave out -m"),
        (["-m", "scripts/train"], "scripts/train is no name of a module"),
        (["-m", "scripts"], "scripts is a package without a __main__; name one of its modules"),
    ],
    ids=[
        "nothing",
        "no_module_named",
        "option",
        "no_file",
        "folder",
        "no_module",
        "no_package",
        "no_submodule",
        "none_of_a_stand_in",
        "file",
        "path",
        "package",
    ],
)
@pytest.mark.slow
def test_bad_usage(folder: Path, words: list[str], sentence: str) -> None:
    done = run(folder, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
