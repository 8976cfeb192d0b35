"""Steps over tools that a machine may lack, with fakes of these on the emulated device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared import REPOSITORY

pytestmark = pytest.mark.slow

FOLDER = REPOSITORY / "benchmarks" / "gpu"
STUDENT = REPOSITORY / "dvmsr" / "weights" / "dvmsr_x4.safetensors"


def tool(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script of that name on the PATH."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def call(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{script}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


SANITIZER = """
echo "$2" >> "$TOLD"
[ "$2" = racecheck ] && exit {racecheck}
[ "$2" = initcheck ] && exec sleep {sleeps}
exit 0
"""


@pytest.mark.parametrize("racecheck", [0, 3])
def test_sanitizer(
    emulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, racecheck: int
) -> None:
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    tool(
        tmp_path, "compute-sanitizer", SANITIZER.format(racecheck=racecheck, sleeps=0), monkeypatch
    )
    done = call("sanitize")
    assert done.returncode == racecheck, done.stderr
    stored = json.loads((emulated / "tried-sanitize.json").read_text())
    codes = {one["tool"]: one["exit_code"] for one in stored["tools"]}
    assert codes == {"memcheck": 0, "racecheck": racecheck, "initcheck": 0}
    assert (tmp_path / "told").read_text().split() == list(codes)
    assert [path.name for path in emulated.iterdir()] == ["tried-sanitize.json"]


def test_sanitizer_that_takes_too_long(
    emulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    text = SANITIZER.format(racecheck=0, sleeps=30)
    tool(tmp_path, "compute-sanitizer", text, monkeypatch)
    done = call("sanitize", "--seconds", "4")
    assert done.returncode == 0, done.stderr
    stored = json.loads((emulated / "tried-sanitize.json").read_text())
    assert (len(stored["tools"]), stored["left_out"]) == (2, ["initcheck"])


def test_profile_of_the_scan(
    emulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, "ncu", 'echo "$@" > "$TOLD"', monkeypatch)
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    done = call("profiling", STUDENT)
    assert done.returncode == 0, done.stderr
    stored = json.loads((emulated / "tried-profile.json").read_text())
    assert stored["ncu"] == {"exit_code": 0, "report": "tried-profile-ncu.ncu-rep"}
    assert "scan.py --lengths 65536 --batches 1 --dtypes float16" in (tmp_path / "told").read_text()
    assert [path.name for path in emulated.iterdir()] == ["tried-profile.json"]


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("sanitize", [], "compute-sanitizer is not here; it comes with the CUDA toolkit"),
        ("profiling", [STUDENT], "ncu is not here, and PyTorch sees no GPU"),
        ("models", [STUDENT], "neither ONNX Runtime's CUDA provider nor TensorRT is here; both"),
        ("training", ["--run", "x"], "there are no photographs to train on"),
    ],
)
def test_what_is_not_here(emulated: Path, script: str, arguments: list[object], said: str) -> None:
    import shutil

    for name in ("compute-sanitizer", "ncu", "nvidia-smi"):
        if shutil.which(name):
            pytest.skip(f"{name} is here")
    done = call(script, *arguments)
    assert done.returncode == 4
    assert f"error: {said}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(emulated.glob("*.json")) if emulated.exists() else True
