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
def test_what_is_not_here(
    emulated: Path, monkeypatch: pytest.MonkeyPatch, script: str, arguments: list[object], said: str
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = call(script, *arguments)
    assert done.returncode == 4
    assert f"error: {said}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(emulated.glob("*.json"))


TRAINS = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
folder.mkdir(exist_ok=True)
(folder / "best.safetensors").write_text(" ".join(sys.argv[1:]))
(folder / "resume.pt").write_text("")
time.sleep(0.5)
(folder / "log.jsonl").write_text("the end")
sys.exit(7)
"""


@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun before"])
def test_training_brings_its_best_checkpoint(
    emulated_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    torch = pytest.importorskip("torch")
    import training

    monkeypatch.setenv("DVMSR_GPU_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("DVMSR_RUN", "tried")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(training, "CODE", TRAINS)
    monkeypatch.setattr(training, "EVERY", 0.1)
    folder = tmp_path / "training"
    if begun:
        folder.mkdir()
        (folder / "resume.pt").write_text("")
        (folder / "gpu-minutes.txt").write_text("2.5\n")
    given = ["training.py", "a.tar", "b.tar", "--run", str(folder), "--val", "kodak"]
    monkeypatch.setattr(sys, "argv", [*given, "--seconds", "75"])
    assert training.main() == 7
    best = (tmp_path / "results" / "tried-train-best.safetensors").read_text()
    own = "--resume" if begun else "--data a.tar b.tar --val kodak"
    assert best == f"dvmsr train -o {folder} {own} --minutes {3.5 if begun else 1.0}"
    assert float((folder / "gpu-minutes.txt").read_text()) == (3.5 if begun else 1.0)
    assert (tmp_path / "results" / "tried-train-log.jsonl").read_text() == "the end"


class Commands:
    """dvmsr's command lines, of which those with `fails` in them fail."""

    def __init__(self, fails: str) -> None:
        self.fails, self.told = fails, [""]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        line = " ".join(map(str, arguments))
        self.told.append(line)
        code = 3 if self.fails in line else 0
        return subprocess.CompletedProcess(line, code, stdout='{"rows": []}')


@pytest.mark.parametrize(
    ("fails", "status"), [("nothing", 0), ("trt", 0), ("parity", 3), ("bench", 3)]
)
def test_models_that_work_are_timed_and_compared(
    emulated_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, status: int
) -> None:
    import models

    monkeypatch.setenv("DVMSR_GPU_RESULTS", str(tmp_path))
    monkeypatch.setenv("DVMSR_RUN", "tried")
    there = {"ONNX Runtime's CUDA provider": True, "TensorRT": True}
    monkeypatch.setattr(models, "runtimes", lambda: there)
    commands = Commands(fails)
    monkeypatch.setattr(models, "Commands", lambda deadline: commands)
    monkeypatch.setattr(sys, "argv", ["models.py", "student.safetensors"])
    assert models.main() == status
    (bench,) = (line for line in commands.told if line.startswith("dvmsr bench"))
    named = [word for word in bench.split() if word.startswith("/")]
    names = ["fp32.onnx:cuda", "fp32.engine", "fp16.onnx:cuda", "fp16.engine"]
    wanted = [name for name in names if fails != "trt" or "engine" not in name]
    assert [Path(word).name for word in named] == wanted
    stored = json.loads((tmp_path / "tried-models.json").read_text())
    assert [one["model"] for one in stored["parity"]] == wanted
    assert ("bench" in stored) == (fails != "bench")


def test_models_without_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import models
    from results import Deadline

    with pytest.raises(models.Late, match="dvmsr bench"):
        models.Commands(Deadline(0)).run("dvmsr", "bench")
    with pytest.raises(models.Late, match="dvmsr --help"):
        models.Commands(Deadline(0.01)).run("dvmsr", "--help")


@pytest.mark.parametrize(
    ("arguments", "fails", "said"),
    [
        ([], True, "wheels could not be brought, as said above"),
        (["--rlfn", "none.pth"], False, "none.pth cannot be copied (No such file or directory)"),
    ],
)
def test_what_cannot_be_carried(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    fails: bool,
    said: str,
) -> None:
    import carry

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        for part in command:
            if part.startswith("-Dfolder="):
                Path(part[9:]).joinpath("kernel_lens", "include", "tensorrt").mkdir(parents=True)
        return subprocess.CompletedProcess(command, int(fails))

    monkeypatch.setattr(carry, "CARRY", tmp_path / "carry")
    monkeypatch.setattr(carry.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["carry.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        carry.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {said}")
