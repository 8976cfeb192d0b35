"""`dvmsr train` as a user meets it: a whole run, a kill -9, and bad input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from processes import next_line
from typer.testing import CliRunner

from dvmsr import checkpoint
from dvmsr.config import preset
from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.train.command import train
from dvmsr.train.run.state import FILE_NAME, TrainState
from dvmsr.utils.threads import cores

APP = typer.Typer()
APP.command()(train)

HALTS_AFTER_FIVE_STEPS = """
import sys, typer
from dvmsr.train.command import train
from dvmsr.train.run.folder import RunFolder
append = RunFolder.append
def halting(folder, row):
    append(folder, row)
    if row["step"] == 5:
        print("halted", flush=True)
        sys.stdin.read()
RunFolder.append = halting
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
    return ["--data", str(photos), "--output", str(out), *listed]


def run(*arguments: str) -> str:
    """What the command prints."""
    return CliRunner().invoke(APP, arguments, catch_exceptions=False).output


@pytest.mark.slow
def test_a_run_killed_with_kill_9_resumes_to_equal_bits(photos: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-c", HALTS_AFTER_FIVE_STEPS, *options(photos, killed)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert next_line(process, process.stdout) == "halted\n"
        process.kill()
    assert TrainState.load(killed / FILE_NAME).step == 4
    run(*options(photos, killed), "--resume")
    run(*options(photos, whole))
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
    with pytest.raises(UsageError, match=r"is not a ntire-student network"):
        run(*options(photos, tmp_path / "c"), "--init", str(start), "--preset", "ntire-student")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--preset", "huge"], "no preset 'huge'"),
        (["--scale", "5"], "scale must be one of"),
        (["--patch", "0"], "--patch must be positive"),
        (["--patch", "400"], "lower --patch"),
        (["--threads", "0"], "the number of threads must be a positive"),
        (["--minutes", "1"], "either --steps or --minutes"),
        (["--schedule", "linear"], "--schedule must be one of"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--val", "nowhere"], "nowhere is not a folder"),
        (["--init", "nowhere.pth"], "nowhere.pth does not exist"),
        (["--device", "cuda:99"], "cuda:99 cannot be used"),
        (["--device", "toaster"], "--device toaster is unknown; name auto"),
        (["--device", "meta"], "meta cannot be used"),
        (["--device", "xla"], "xla cannot be used"),  # PyTorch's reason has pages
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
    assert "\n" not in text and len(text) < 400
    if "cannot be used" in message:
        assert isinstance(caught.value, MissingComponentError)
    if "is unknown" in message:
        assert isinstance(caught.value, UsageError)
        assert len(text) < 80


def test_a_usage_error_leaves_no_folder(photos: Path, tmp_path: Path) -> None:
    for extra in (["--minutes", "1"], ["--patch", "400"], ["--val", "nowhere"], ["--lr", "-1"]):
        with pytest.raises(UsageError):
            run(*options(photos, tmp_path / "deep" / "out"), *extra)
    assert not (tmp_path / "deep").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder closed even to root")
@pytest.mark.parametrize("out", ["/proc", "/proc/new"])
def test_a_closed_folder_is_noticed_before_anything_is_read(photos: Path, out: str) -> None:
    for photo in photos.iterdir():
        photo.unlink()
    with pytest.raises(DvmsrError, match=f"{out} cannot be written to"):
        run(*options(photos, Path(out)))


@pytest.fixture
def begun(photos: Path, tmp_path: Path) -> Path:
    """A short run with a held-out folder and a multistep schedule."""
    held_out = tmp_path / "held-out"
    photos.rename(tmp_path / "all")
    for folder, names in ((photos, "01"), (held_out, "2")):
        folder.mkdir()
        for name in names:
            (tmp_path / "all" / f"{name}.png").rename(folder / f"{name}.png")
    out = tmp_path / "begun"
    run(*options(photos, out, 2), "--val", str(held_out), "--schedule", "multistep")
    return out


def test_resume_needs_no_other_option(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(begun)  # paths given before were relative to another folder
    assert "is complete; give more --steps" in run("--output", str(begun), "--resume")
    state = TrainState.load(begun / FILE_NAME)
    told = run("--output", str(begun), "--resume", "--steps", "5")
    assert "the run becomes longer, 5 steps instead of 2" in told
    after = TrainState.load(begun / FILE_NAME)
    assert (state.step, after.step) == (2, 5)
    assert after.settings == {**state.settings, "steps": 5}
    assert (after.data, after.validation, after.origin) == (
        state.data,
        state.validation,
        state.origin,
    )


def test_resume_takes_the_first_command_and_moved_images(
    begun: Path, photos: Path, tmp_path: Path
) -> None:
    photos.rename(tmp_path / "moved")
    (tmp_path / "held-out").rename(tmp_path / "elsewhere")
    arguments = [*options(tmp_path / "moved", begun, 2), "--schedule", "multistep"]
    run(*arguments, "--val", str(tmp_path / "elsewhere"), "--preset", "student", "--resume")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--val", "strange"], "the images of --val (1) are not those that the run in"),
        (["--data", "strange"], "the images of --data (1) are not those that the run in"),
        (["--init", "begun/last.safetensors"], "began with new weights, not with what begun/last"),
        (["--preset", "teacher"], "is not a teacher network (channels 60, not 192; depths"),
        (["--scale", "2"], "upscales by 4, not 2; leave --scale out"),
        (["--steps", "1"], "has --steps 2, which cannot become 1"),
        (["--minutes", "1"], "is bounded by --steps 2; give --steps"),
        (["--lr", "1"], "has --lr 0.002, not 1.0; leave --lr out"),
        (["--patch", "5"], "has --patch 4, not 5; leave --patch out"),
        (["--schedule", "cosine"], "has --schedule multistep, not cosine"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_resume_refuses_what_differs(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("strange").mkdir()
    Image.new("RGB", (40, 40), "red").save("strange/2.png")
    before = {path: path.read_bytes() for path in begun.iterdir()}
    with pytest.raises(UsageError) as caught:
        run("--output", str(begun), "--resume", *extra)
    assert message in str(caught.value)
    assert "{" not in str(caught.value) and "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in begun.iterdir()} == before


def test_held_out_images_are_not_trained_on(photos: Path, tmp_path: Path) -> None:
    held_out = photos / "held-out"
    held_out.mkdir()
    (photos / "2.png").rename(held_out / "2.png")
    with pytest.raises(UsageError, match=r"2\.png is in --val and below --data too"):
        run(*options(photos, tmp_path / "out"), "--val", str(held_out))


@pytest.mark.slow
def test_a_cache_of_pixels_is_made_once_and_changes_nothing(photos: Path, tmp_path: Path) -> None:
    out, plain, pixels = (tmp_path / name for name in ("out", "plain", "pixels"))
    arguments = [*options(photos, out, 2), "--schedule", "multistep"]
    assert f"decoding 3 images into {pixels}" in run(*arguments, "--cache", str(pixels))
    before = {path: path.stat().st_mtime_ns for path in pixels.rglob("*")}
    told = run("--output", str(out), "--resume", "--steps", "4")
    assert "decoding" not in told and "done: 4 steps" in told
    assert {path: path.stat().st_mtime_ns for path in pixels.rglob("*")} == before
    run(*options(photos, plain, 2), "--schedule", "multistep")
    run("--output", str(plain), "--resume", "--steps", "4", "--cache", str(pixels))
    a, b = (TrainState.load(folder / FILE_NAME) for folder in (out, plain))
    assert a.data == b.data and a.origin["cache"] == b.origin["cache"] == str(pixels)
    torch.testing.assert_close(a.weights, b.weights, rtol=0, atol=0)


def test_several_paths_may_follow_data(photos: Path, tmp_path: Path) -> None:
    first, *others = sorted(map(str, photos.iterdir()))
    out = tmp_path / "out"
    run("--data", first, *others, *options(photos, out, 1)[2:])
    assert TrainState.load(out / FILE_NAME).data[0] == 3


def test_validation_beyond_all_memory_is_refused_before_training(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvmsr.runtime.memory.available", lambda: 1000)
    with pytest.raises(DvmsrError, match="the largest image of --val has 10x10 pixels"):
        run("--output", str(begun), "--resume", "--steps", "3")


def test_without_data_there_is_nothing_to_train_on(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name folders or \.tar shards with --data"):
        run(*options(photos, tmp_path / "out")[2:])


def test_too_many_threads_are_bounded(photos: Path, tmp_path: Path) -> None:
    told = run(*options(photos, tmp_path / "out", 1), "--threads", "1000000")
    assert "warning: 1000000 threads are more than the" in told
    assert torch.get_num_threads() == cores()


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


@pytest.mark.parametrize("name", ["best.safetensors", "log.jsonl"])
def test_files_of_others_are_not_overwritten(photos: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"precious")
    with pytest.raises(UsageError, match=f"{name} would be overwritten"):
        run(*options(photos, out))
    assert (out / name).read_bytes() == b"precious"
