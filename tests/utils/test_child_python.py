from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dvmsr.utils import child_python


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files called like modules that the programs import."""
    for name in ("resource", "runpy", "json", "numpy", "dvmsr"):
        (tmp_path / f"{name}.py").write_text("open('sprung', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    return tmp_path


@pytest.mark.parametrize("module", ["dvmsr.export.trt.worker", "dvmsr.runtime.bench.probe"])
def test_files_of_the_current_folder_are_not_run(module: str, trap: Path) -> None:
    done = subprocess.run(child_python.command(module, "none"), capture_output=True, text=True)
    assert done.returncode
    assert "dvmsr" in done.stderr  # the program itself ran, and missed its arguments
    assert not (trap / "sprung").exists()
    subprocess.run([sys.executable, "-m", module], capture_output=True, check=False)
    assert (trap / "sprung").exists()  # what the trap is for


def test_modules_come_from_the_import_path_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "it's ü"
    folder.mkdir()
    (folder / "said.py").write_text("import sys\nprint(__name__, sys.argv[1:])\n")
    monkeypatch.syspath_prepend(folder)
    done = subprocess.run(child_python.command("said", "a b"), capture_output=True, text=True)
    assert done.stdout == "__main__ ['a b']\n"
