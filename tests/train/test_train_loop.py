"""The trainer: it learns, it stops and goes on exactly, and it keeps what it promises on disk."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.model import DVMSR
from dvmsr.pairs import Pair
from dvmsr.resize import imresize
from dvmsr.train.data import Patches
from dvmsr.train.loop import Settings, Trainer
from dvmsr.train.schedule import Schedule
from dvmsr.train.state import FILE_NAME, TrainState, open_run

CONFIG = DVMSRConfig(channels=8, depths=(1,), state=4, scale=2)
SETTINGS: dict[str, Any] = {
    "batch": 2, "schedule": Schedule(warmup=2),
    "log_every": 2, "save_every": 3, "validate_every": 5,
}  # fmt: skip


def stripes(seed: int, side: int = 32) -> Pair:
    """An image with edges that bicubic interpolation blurs, and its reduction."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(side)[:, None] * rng.uniform(0.2, 0.9) + np.arange(side) * 0.3) > 0
    hr = np.where(wave[..., None], rng.integers(0, 99, 3), 200).astype(np.uint8)
    return Pair(hr, imresize(hr, 0.5))


class MemoryPatches(Patches):
    """Patches of pairs that no file holds; `stop_at` plays a Ctrl-C or kill during a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.scale, self.patch, self.fingerprint = 2, 6, "stripes"
        self.pairs = [stripes(i) for i in range(3)]
        self.stop_at, self._order_of, self._order = stop_at, None, np.arange(0)

    def batch(self, seed: int, step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(seed, step, size)


def trainer(
    out: Path, *, resume: bool = False, patches: Patches | None = None, **settings: Any
) -> Trainer:
    torch.manual_seed(0)
    settings = {**SETTINGS, **({} if "minutes" in settings else {"steps": 12}), **settings}
    return Trainer(
        DVMSR(CONFIG),
        Settings(**settings),
        patches or MemoryPatches(),
        [stripes(1)],
        out,
        state=open_run(out, resume),
    )


def rows(out: Path) -> list[dict[str, Any]]:
    """The log without its timings."""
    keep = ("step", "loss", "lr", "psnr_y")
    lines = (out / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k in keep} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps without interruption."""
    out = tmp_path_factory.mktemp("whole")
    trainer(out).run()
    return out


def test_it_learns(tmp_path: Path) -> None:
    trainer(tmp_path, steps=40, lr=5e-3, log_every=10, validate_every=10).run()
    losses = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    scores = [row["psnr_y"] for row in rows(tmp_path) if "psnr_y" in row]
    assert losses[-1] < 0.65 * losses[0]
    assert scores[-1] > scores[0] + 2


def test_a_run_leaves_log_and_loadable_checkpoints(whole: Path) -> None:
    assert sorted(file.name for file in whole.iterdir()) == [
        "best.safetensors", "last.safetensors", "log.jsonl", FILE_NAME,
    ]  # fmt: skip
    assert [row["step"] for row in rows(whole) if "loss" in row] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in rows(whole) if "psnr_y" in row] == [5, 10, 12]
    model = checkpoint.load(whole / "last.safetensors")
    assert model.config == CONFIG
    state = TrainState.load(whole / FILE_NAME)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, state.ema[name], rtol=0, atol=0)
    with safe_open(whole / "last.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["steps"] == "12"
    assert metadata["data"] == "3 images"
    assert f"{rows(whole)[-1]['psnr_y']:.3f} dB" in metadata["validation"]


def test_the_average_trails_the_weights(whole: Path) -> None:
    state = TrainState.load(whole / FILE_NAME)
    name = "conv_first.weight"
    assert not torch.equal(state.weights[name], state.ema[name])


def test_a_stopped_run_goes_on_to_equal_bits(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, patches=MemoryPatches(stop_at=6)).run()
    assert TrainState.load(tmp_path / FILE_NAME).step == 7  # the step was finished
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    trainer(tmp_path, resume=True).run()
    assert_equal_runs(whole, tmp_path)


def test_a_run_that_died_goes_on_from_its_last_save_to_equal_bits(
    whole: Path, tmp_path: Path
) -> None:
    class Dies(MemoryPatches):
        def batch(self, seed: int, step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
            if step == 8:
                raise MemoryError
            return super().batch(seed, step, size)

    with pytest.raises(MemoryError):
        trainer(tmp_path, patches=Dies()).run()
    assert TrainState.load(tmp_path / FILE_NAME).step == 6
    trainer(tmp_path, resume=True).run()
    assert_equal_runs(whole, tmp_path)


def test_time_bounds_a_run_over_its_sessions(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, minutes=1 / 30, patches=MemoryPatches(stop_at=3)).run()
    spent = TrainState.load(tmp_path / FILE_NAME).seconds
    assert 0 < spent < 2
    second = trainer(tmp_path, minutes=1 / 30, resume=True)
    assert second.seconds >= spent
    second.run()
    assert 2 <= second.seconds < 30
    rates = [row["lr"] for row in rows(tmp_path) if "lr" in row and row["step"] > 3]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * Settings.lr
    finished = trainer(tmp_path, minutes=1 / 30, resume=True)
    finished.run()
    assert finished.step == second.step


def test_rows_past_the_resumed_step_are_written_again(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, patches=MemoryPatches(stop_at=6)).run()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 8, "loss": 99}\n{"step": 10, "lo')  # written after the last save
    trainer(tmp_path, resume=True).run()
    assert [row["step"] for row in rows(tmp_path)] == [row["step"] for row in rows(whole)]
    assert 99 not in [row.get("loss") for row in rows(tmp_path)]


def test_a_run_is_not_overwritten_nor_made_up(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already holds a run; add --resume"):
        trainer(whole)
    with pytest.raises(DvmsrError, match="no run to resume"):
        trainer(tmp_path, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(DvmsrError, match="cannot be made a folder"):
        trainer(tmp_path / "file")


@pytest.mark.parametrize(
    "change", [{"lr": 1e-3}, {"batch": 3}, {"seed": 1}, {"schedule": Schedule("multistep", 2)}]
)
def test_resuming_with_other_settings_is_refused(whole: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"has .*{next(iter(change))}.*repeat the first command"):
        trainer(whole, resume=True, **change)


def test_resuming_with_other_data_is_refused(whole: Path) -> None:
    patches = MemoryPatches()
    patches.fingerprint = "dots"
    with pytest.raises(UsageError, match="has data stripes, this command dots"):
        trainer(whole, resume=True, patches=patches)


def test_divergence_stops_the_run_before_it_spoils_the_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    with torch.no_grad():
        run.model.conv_first.bias.fill_(torch.nan)
    with pytest.raises(DvmsrError, match="the loss became nan at step 0"):
        run.run()


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"steps": 1, "minutes": 1}, {"steps": 0}, {"minutes": -1}, {"steps": 1, "lr": 0},
        {"steps": 1, "batch": 0}, {"steps": 1, "ema": 1}, {"steps": 1, "seed": -1},
        {"steps": 1, "lr": float("nan")}, {"steps": 1, "save_every": 0},
    ],
)  # fmt: skip
def test_nonsense_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        Settings(**settings)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_broken_resume_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / FILE_NAME
    if content is None:
        torch.save({"format": 1, "step": 3}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(DvmsrError, match=r"resume\.pt is damaged or no resume file"):
        TrainState.load(path)


def test_a_resume_file_of_another_version_is_named(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / FILE_NAME)
    with pytest.raises(DvmsrError, match="format 99"):
        TrainState.load(tmp_path / FILE_NAME)


def assert_equal_runs(a: Path, b: Path) -> None:
    """The same weights, averages, moments and log, bit by bit."""
    for name in ("last.safetensors", "best.safetensors"):
        x, y = (checkpoint.load(folder / name).state_dict() for folder in (a, b))
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    first, second = (TrainState.load(folder / FILE_NAME) for folder in (a, b))
    torch.testing.assert_close(first.weights, second.weights, rtol=0, atol=0)
    torch.testing.assert_close(first.optimizer["state"], second.optimizer["state"], rtol=0, atol=0)
    assert (first.step, first.best_psnr) == (second.step, second.best_psnr)
    known = {row["step"]: row for row in rows(a) if "psnr_y" in row}
    assert {row["step"]: row for row in rows(b) if "psnr_y" in row} == known
