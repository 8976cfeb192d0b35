"""`dvmsr distill` as a user meets it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.data.pairs import Pixels
from dvmsr.errors import UsageError
from dvmsr.model import DVMSR
from dvmsr.train.command import distill, train
from dvmsr.train.data.patches import ALL, Patches
from dvmsr.train.run.state import FILE_NAME, TrainState
from dvmsr.utils.signals import Ended

APP = typer.Typer()
APP.command()(distill)
APP.command()(train)

NETWORK = "[network]\nchannels = 8\ndepths = [1, 1]\nstate = 4\nscale = 2\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds photos/, teacher.safetensors and a configuration that makes everything small."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.png")
    torch.manual_seed(0)
    checkpoint.save(DVMSR(DVMSRConfig(12, (1, 1, 1), 4, scale=2)), "teacher.safetensors")
    Path("small.toml").write_text(
        f'data = "photos"\nbatch = 2\npatch = 5\nthreads = 1\nlog-every = 1\n{NETWORK}'
    )
    return tmp_path


def run(command: str, *arguments: str) -> str:
    return CliRunner().invoke(APP, [command, *arguments], catch_exceptions=False).output


SMALL = ("--config", "small.toml")
BEGIN = ("--teacher", "teacher.safetensors", *SMALL, "--steps", "3")


@pytest.mark.parametrize("name", ["paper-distilled", "table7-mid-l2-5to1", "table7-both-l1-1to1"])
def test_a_recipe_is_one_command(folder: Path, name: str) -> None:
    told = run("distill", *BEGIN, "--recipe", name, "-o", "run", "--teacher-precision", "fp16")
    assert "done: 3 steps" in told
    rows = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    weight = 5 if name.endswith("5to1") else 1
    for row in rows[:3]:
        assert row["loss"] == pytest.approx(weight * row["distillation"] + row["l1"], rel=1e-5)
    assert checkpoint.load("run/last.safetensors").config.channels == 8
    with safe_open("run/last.safetensors", "pt") as file:
        metadata = file.metadata()
    training = json.loads(metadata["training"])
    assert training["lambda_dis"] == weight and training["teacher_precision"] == "fp16"
    assert str(folder) not in str(metadata)  # no paths of this machine
    assert training["teacher_sha256"] == checkpoint.sha256("teacher.safetensors")
    assert (training["batch"], training["steps"], training["lr"]) == (2, 3, 2e-4)


def test_resumed_with_nothing_but_its_folder_it_gives_equal_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*BEGIN, "--position", "mid", "--schedule", "multistep")
    original = Patches.batch

    def stopped(
        self: Patches, seed: int, step: int, size: int, part: slice = ALL
    ) -> tuple[Pixels, Pixels]:
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, seed, step, size, part)

    run("distill", *options, "-o", "whole", "--steps", "4")
    with monkeypatch.context() as patched:
        patched.setattr(Patches, "batch", stopped)
        with pytest.raises(Ended):
            run("distill", *options, "-o", "parts", "--steps", "4")
    state = TrainState.load(Path("parts") / FILE_NAME)
    assert state.step == 2 and state.objective and state.settings["position"] == "mid"
    run("train", "-o", "parts", "--resume")
    a, b = (TrainState.load(Path(name) / FILE_NAME) for name in ("whole", "parts"))
    torch.testing.assert_close(a.weights, b.weights, rtol=0, atol=0)
    torch.testing.assert_close(a.objective, b.objective, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("command", "extra", "message"),
    [
        ("distill", (*SMALL, "--steps", "1"), "there is no teacher; name its checkpoint"),
        ("train", (*SMALL, "--recipe", "paper-distilled"), "begin it with dvmsr distill --teacher"),
        ("distill", (*BEGIN, "--teacher", "no.safetensors"), "no.safetensors does not exist"),
        ("distill", (*BEGIN, "--scale", "4"), "the teacher upscales by 2, the student by 4"),
        ("distill", (*BEGIN, "--position", "top"), "--position must be one of"),
        ("train", (*SMALL, "--recipe", "table9"), "no recipe 'table9'"),
        ("train", (*SMALL, "--steps", "1", "--dt-init", "zero"), "--dt-init must be one of"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_bad_input_gets_one_sentence(
    folder: Path, command: str, extra: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Exception) as caught:
        run(command, *extra, "-o", "run")
    assert message in str(caught.value)
    assert not Path("run").exists()


def test_resuming_keeps_the_teacher(folder: Path) -> None:
    run("distill", *BEGIN, "-o", "run")
    Path("teacher.safetensors").rename("moved.safetensors")
    more = ("-o", "run", "--resume", "--steps", "4")
    run("distill", *more, "--teacher", "moved.safetensors")
    checkpoint.save(DVMSR(DVMSRConfig(12, (1, 1, 1), 4, scale=2)), "other.safetensors")
    for extra, message in [
        (("--teacher", "other.safetensors"), "is not the teacher that the run in run began with"),
        (("--position", "mid"), "has --position end, not mid"),
        (("--lambda-dis", "2"), "has --lambda-dis 1.0, not 2.0"),
    ]:
        with pytest.raises(UsageError, match=message):
            run("distill", *more, *extra)
    run("train", *SMALL, "-o", "plain", "--steps", "1")
    with pytest.raises(UsageError, match=r"begin it with dvmsr distill"):
        run("distill", "-o", "plain", "--resume", "--teacher", "moved.safetensors")


def test_official_initialisation_of_delta_is_a_choice(folder: Path) -> None:
    for choice in ("mamba", "official"):
        options = (*SMALL, "--steps", "1", "--lr", "1e-30", "--dt-init", choice)
        run("train", *options, "-o", choice)
    for choice in ("mamba", "official"):
        mixer = checkpoint.load(f"{choice}/last.safetensors").layers[0].residual_group[0][0].mixer
        delta = torch.nn.functional.softplus(mixer.dt_proj.bias)
        if choice == "official":
            torch.testing.assert_close(delta, torch.full_like(delta, 0.6931472))
        else:
            assert delta.min() >= 1e-3 and delta.max() <= 0.1001
