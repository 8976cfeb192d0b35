"""`dvmsr train` as a user meets it: a whole run, a kill -9, and bad input."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from dvmsr import checkpoint
from dvmsr.config import preset
from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.train.command import train
from dvmsr.train.state import FILE_NAME, TrainState

APP = typer.Typer()
APP.command()(train)

PROGRAM = """
import typer
from dvmsr.train.command import train
app = typer.Typer()
app.command()(train)
app()
"""


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def options(photos: Path, out: Path, steps: int = 8) -> list[str]:
    numbers = {"steps": steps, "patch": 4, "batch": 1, "threads": 1}
    numbers |= {"log-every": 1, "save-every": 2}
    listed = [text for key, value in numbers.items() for text in (f"--{key}", str(value))]
    return ["--data", str(photos), "--out", str(out), *listed]


def run(*arguments: str) -> None:
    CliRunner().invoke(APP, arguments, catch_exceptions=False)


def test_a_run_killed_with_kill_9_resumes_to_equal_bits(photos: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    steps = 24
    command = [sys.executable, "-c", PROGRAM, *options(photos, killed, steps)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    log = killed / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    reached = TrainState.load(killed / FILE_NAME).step
    assert 4 <= reached < steps
    run(*options(photos, killed, steps), "--resume")
    run(*options(photos, whole, steps))
    a, b = (checkpoint.load(out / "last.safetensors").state_dict() for out in (whole, killed))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_fine_tuning_takes_network_and_weights_from_the_checkpoint(
    photos: Path, tmp_path: Path
) -> None:
    run(*options(photos, tmp_path / "a", steps=1))
    start = tmp_path / "a" / "last.safetensors"
    assert checkpoint.load(start).config == preset("student")
    run(*options(photos, tmp_path / "b", steps=1), "--init", str(start), "--lr", "1e-30")
    before, after = (
        checkpoint.load(tmp_path / name / "last.safetensors").state_dict() for name in "ab"
    )
    for name, tensor in before.items():
        np.testing.assert_allclose(after[name], tensor, rtol=1e-6, atol=1e-9)
    with pytest.raises(UsageError, match=r"last\.safetensors upscales by 4, not 2"):
        run(*options(photos, tmp_path / "c"), "--init", str(start), "--scale", "2")
    with pytest.raises(UsageError, match=r"is not a ntire-student network"):
        run(*options(photos, tmp_path / "c"), "--init", str(start), "--preset", "ntire-student")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--preset", "huge"], "no preset 'huge'"),
        (["--scale", "5"], "scale must be one of"),
        (["--patch", "0"], "--patch must be positive"),
        (["--patch", "400"], "lower --patch"),
        (["--threads", "0"], "--threads must be positive"),
        (["--minutes", "1"], "either --steps or --minutes"),
        (["--schedule", "linear"], "--schedule must be one of"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--val", "nowhere"], "nowhere is not a folder"),
        (["--init", "nowhere.pth"], "nowhere.pth does not exist"),
        (["--device", "cuda:99"], "cuda:99 cannot be used"),
        (["--device", "toaster"], "toaster cannot be used"),
        (["--resume"], "no run to resume"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_sentence(
    photos: Path, tmp_path: Path, extra: list[str], message: str
) -> None:
    with pytest.raises(DvmsrError) as caught:
        run(*options(photos, tmp_path / "out"), *extra)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    if "--device" in extra:
        assert isinstance(caught.value, MissingComponentError)


def test_help_imports_no_torch() -> None:
    code = "import sys, dvmsr.train.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_damaged_resume_file_names_the_remedy(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / FILE_NAME).write_bytes(b"garbage")
    with pytest.raises(DvmsrError) as caught:
        run(*options(photos, out), "--resume")
    assert "put a copy back" in str(caught.value) and "weights_only" not in str(caught.value)


def test_weights_of_others_are_not_overwritten(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    weights = out / "best.safetensors"
    weights.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"best\.safetensors would be overwritten"):
        run(*options(photos, out))
    assert weights.read_bytes() == b"precious"
