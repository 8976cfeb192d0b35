"""The trainer: it learns, it stops and goes on exactly, and it keeps what it promises on disk."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import types
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch._dynamo.utils import counters

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.data.imresize import imresize
from dvmsr.data.pairs import Pair, Pixels
from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.eval.metrics import psnr_y
from dvmsr.model import DVMSR
from dvmsr.train import compiled
from dvmsr.train.config.settings import Settings
from dvmsr.train.data.patches import ALL, Patches
from dvmsr.train.data.photographs import Photograph
from dvmsr.train.data.prefetch import Prefetch
from dvmsr.train.loop import Trainer
from dvmsr.train.run.board import check_board
from dvmsr.train.run.folder import RunFolder
from dvmsr.train.run.state import FILE_NAME, FORMAT, TrainState, open_run
from dvmsr.train.validate import validate
from dvmsr.utils.signals import Ended

CONFIG = DVMSRConfig(channels=8, depths=(1,), state=4, scale=2)
SETTINGS: dict[str, Any] = {
    "batch": 2, "patch": 6, "warmup": 2,
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

    def __init__(self, stop_at: int | None = None, signal: int = signal.SIGINT) -> None:
        photographs = [
            Photograph(f"{name}.png", name.encode(), (16, 16), partial(stripes, i))
            for i, name in enumerate("abc")
        ]
        super().__init__(photographs, 2, 6, pytest.fail)
        self.signal, self.stop_at = signal, stop_at

    def batch(self, seed: int, step: int, size: int, part: slice = ALL) -> tuple[Pixels, Pixels]:
        if step == self.stop_at:
            os.kill(os.getpid(), self.signal)
        return super().batch(seed, step, size, part)


def trainer(
    out: Path,
    *,
    resume: bool = False,
    patches: Patches | None = None,
    validation: list[Pair] | None = None,
    config: DVMSRConfig = CONFIG,
    **settings: Any,
) -> Trainer:
    torch.manual_seed(0)
    settings = {**SETTINGS, **({} if "minutes" in settings else {"steps": 12}), **settings}
    return Trainer(
        DVMSR(config),
        Settings(**settings),
        patches or MemoryPatches(),
        [stripes(1)] if validation is None else validation,
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
        "step-00000005.safetensors", "step-00000010.safetensors", "step-00000012.safetensors",
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
    with pytest.raises(Ended):
        trainer(tmp_path, patches=MemoryPatches(stop_at=6)).run()
    assert TrainState.load(tmp_path / FILE_NAME).step == 7  # the step was finished
    with pytest.raises(Ended) as ended:
        trainer(tmp_path, resume=True, patches=MemoryPatches(9, signal.SIGTERM)).run()
    assert ended.value.exit_code == 128 + signal.SIGTERM
    assert TrainState.load(tmp_path / FILE_NAME).step == 10
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    trainer(tmp_path, resume=True).run()
    assert_equal_runs(whole, tmp_path)
    first, second = (TrainState.load(folder / FILE_NAME) for folder in (whole, tmp_path))
    assert first.optimiser["watch"] == second.optimiser["watch"]


def test_a_validation_that_a_signal_prevents_is_made_up_for(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Ended):
        trainer(tmp_path, patches=MemoryPatches(stop_at=4)).run()
    state = TrainState.load(tmp_path / FILE_NAME)
    assert state.step == 5 and state.due
    trainer(tmp_path, resume=True).run()
    assert_equal_runs(whole, tmp_path)


def test_batches_made_ahead_give_equal_bits(whole: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.batches = Prefetch(run._batch, 4)
    run.run()
    assert run.batches.pool is None
    assert_equal_runs(whole, tmp_path)


class FakeWriter:
    """TensorBoard's writer as far as it is used."""

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.curves: dict[str, list[int]] = {}
        self.pictures: list[tuple[str, tuple[int, ...], int]] = []
        self.closed = False
        writers.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        assert isinstance(value, (int, float))
        self.curves.setdefault(name, []).append(step)

    def add_image(self, name: str, image: np.ndarray, step: int, dataformats: str) -> None:
        assert image.dtype == np.uint8 and dataformats == "HWC"
        self.pictures.append((name, image.shape, step))

    def close(self) -> None:
        self.closed = True


writers: list[FakeWriter] = []


def test_curves_and_pictures_go_to_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter
    monkeypatch.setitem(sys.modules, module.__name__, module)
    writers.clear()
    held_out = [stripes(1), stripes(2, side=24), stripes(3)]
    trainer(tmp_path, validation=held_out, tensorboard=True, pictures=2).run()
    (writer,) = writers
    assert (writer.folder, writer.purge_step) == (str(tmp_path / "tensorboard"), 1)
    assert writer.curves["loss"] == writer.curves["lr"] == [2, 4, 6, 8, 10, 12]
    assert writer.curves["psnr_y"] == [5, 10, 12]
    assert writer.closed
    sizes = {"validation/0": (32, 32, 3), "validation/1": (24, 24, 3)}
    assert writer.pictures == [(*each, step) for step in (5, 10, 12) for each in sizes.items()]
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [picture.name for picture in pictures] == ["000.png", "001.png"]
    last = np.asarray(Image.open(pictures[0]))
    score = psnr_y(last, held_out[0].hr, 2)
    network = checkpoint.load(tmp_path / "last.safetensors")
    assert score == pytest.approx(validate(network, held_out[:1], 2), abs=1e-9)


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingComponentError, match=r"pip install 'dvmsr\[tensorboard\]'"):
        check_board()


def test_the_line_shows_speed_and_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(tmp_path).run()
    line = next(line for line in capsys.readouterr().err.splitlines() if "step 10  loss" in line)
    n = r"\d+\.\d+"
    shape = rf"step 10  loss {n}  PSNR-Y {n} dB  {n} img/s  ETA 0:00:0\d(  {n} GiB)?"
    assert re.fullmatch(shape, line)


def test_a_run_that_died_goes_on_from_its_last_save_to_equal_bits(
    whole: Path, tmp_path: Path
) -> None:
    class Dies(MemoryPatches):
        def batch(
            self, seed: int, step: int, size: int, part: slice = ALL
        ) -> tuple[Pixels, Pixels]:
            if step == 8:
                raise InterruptedError
            return super().batch(seed, step, size, part)

    with pytest.raises(InterruptedError):
        trainer(tmp_path, patches=Dies()).run()
    assert TrainState.load(tmp_path / FILE_NAME).step == 6
    trainer(tmp_path, resume=True).run()
    assert_equal_runs(whole, tmp_path)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_and_goes_on_to_equal_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captured as a graph with its gradients, which runs without a C++ compiler."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    trainer(tmp_path / "whole", compile=True).run()
    with pytest.raises(Ended):
        trainer(tmp_path / "parts", compile=True, patches=MemoryPatches(stop_at=6)).run()
    trainer(tmp_path / "parts", compile=True, resume=True).run()
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    assert counters["stats"]["unique_graphs"] >= 1 and not counters["graph_break"]
    eager, graph = (TrainState.load(path / FILE_NAME) for path in (whole, tmp_path / "whole"))
    torch.testing.assert_close(graph.weights, eager.weights, rtol=1e-4, atol=1e-5)
    trainer(tmp_path / "parts", resume=True, steps=13).run()  # and without


@pytest.mark.slow
def test_what_cannot_be_compiled_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(*_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compiled, "BACKEND", backend)
    with pytest.raises(MissingComponentError, match=r"cannot be compiled here \(.*no-compile"):
        trainer(tmp_path, compile=True).run()


def test_time_bounds_a_run_over_its_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()
    monkeypatch.setattr("dvmsr.train.loop.monotonic", lambda: 0.02 * next(clock))
    with pytest.raises(Ended):
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


def test_a_run_without_time_for_a_step_leaves_its_first_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path / "new", minutes=1e-12)
    run.run()
    assert run.step == 0
    assert checkpoint.load(tmp_path / "new" / "last.safetensors").config == CONFIG


def test_a_full_disk_at_the_start_leaves_a_folder_to_start_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DvmsrError("no space left")

    with monkeypatch.context() as patch, pytest.raises(DvmsrError, match="no space"):
        patch.setattr(TrainState, "save", full)
        trainer(tmp_path / "run").run()
    trainer(tmp_path / "run", steps=2).run()
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_rows_past_the_resumed_step_are_written_again(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Ended):
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
    with pytest.raises(DvmsrError, match=r"file cannot be written to \(Not a directory\)"):
        trainer(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 1e-3}, "has --lr 0.002, not 0.001; leave --lr out to go on, or start anew"),
        ({"batch": 3}, "has --batch 2, not 3; leave --batch out"),
        ({"seed": 1}, "has --seed 0, not 1"),
        ({"schedule": "multistep"}, "has --schedule cosine, not multistep"),
        ({"warmup": 3}, "has --warmup 2, not 3"),
        ({"steps": 11}, "has --steps 12, which cannot become 11; give more or leave --steps out"),
        ({"minutes": 9}, "is bounded by --steps 12; give --steps or leave the length out"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_resuming_with_other_settings_is_refused(
    whole: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        trainer(whole, resume=True, **change)
    assert f"the run in {whole} {message}" in str(caught.value)


def test_how_often_to_report_may_change(whole: Path) -> None:
    trainer(whole, resume=True, log_every=1, save_every=1, validate_every=1)


def test_resuming_with_other_images_is_refused(whole: Path) -> None:
    patches = MemoryPatches()
    patches.fingerprint = "dots"
    with pytest.raises(UsageError, match=r"the images of --data \(3\) are not those .* \(3\)"):
        trainer(whole, resume=True, patches=patches)
    with pytest.raises(UsageError, match=r"the images of --val \(1\) are not those .* \(1\)"):
        trainer(whole, resume=True, validation=[stripes(2)])
    with pytest.raises(UsageError, match=r"the images of --val \(0\) are not those .* \(1\)"):
        trainer(whole, resume=True, validation=[])


def test_resuming_without_validation_where_there_was_none(tmp_path: Path) -> None:
    trainer(tmp_path, validation=[]).run()
    with pytest.raises(UsageError, match="has no --val; leave it out"):
        trainer(tmp_path, resume=True)
    trainer(tmp_path, resume=True, validation=[], steps=14).run()
    with safe_open(tmp_path / "last.safetensors", "pt") as file:
        assert file.metadata()["steps"] == "14"
        assert "validation" not in file.metadata()


def test_resuming_another_network_names_the_difference(whole: Path) -> None:
    other = replace(CONFIG, channels=12)
    with pytest.raises(UsageError, match=r"has another network \(channels 8, not 12\)"):
        trainer(whole, resume=True, config=other)


def test_a_finished_run_has_nothing_left_to_do(whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.iterdir()}
    finished = trainer(whole, resume=True)
    assert finished.finished
    finished.run()
    assert {path: path.read_bytes() for path in whole.iterdir()} == before


def test_a_run_made_longer_before_a_milestone_equals_one_of_that_length(tmp_path: Path) -> None:
    """multistep has not changed the rate yet, so nothing depends on the length given first."""
    settings = {"schedule": "multistep", "steps": 10, "validate_every": 1}
    with pytest.raises(Ended):
        trainer(tmp_path / "longer", patches=MemoryPatches(stop_at=3), **settings).run()
    settings["steps"] = 14
    trainer(tmp_path / "longer", resume=True, **settings).run()
    trainer(tmp_path / "whole", **settings).run()
    assert_equal_runs(tmp_path / "whole", tmp_path / "longer")


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    trainer(tmp_path, steps=4).run()
    longer = trainer(tmp_path, resume=True, steps=6)
    assert not longer.finished
    longer.run()
    assert longer.step == 6
    assert trainer(tmp_path, resume=True, steps=6).finished


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")],
    ids=["numpy", "torch"],
)
def test_too_little_memory_is_one_sentence(tmp_path: Path, error: Exception) -> None:
    class Hungry(MemoryPatches):
        def batch(
            self, seed: int, step: int, size: int, part: slice = ALL
        ) -> tuple[Pixels, Pixels]:
            raise error

    with pytest.raises(DvmsrError, match=r"a step of 2 patches needs more memory .* lower --batch"):
        trainer(tmp_path, patches=Hungry()).run()


def test_a_batch_beyond_all_memory_fails_at_once() -> None:
    with pytest.raises(MemoryError):
        MemoryPatches().batch(0, 0, 10**13)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    first, second = trainer(tmp_path), trainer(tmp_path)
    first.run()
    with pytest.raises(UsageError, match="already holds a run"):
        second.run()
    with ExitStack() as until:
        RunFolder(tmp_path, Settings(steps=12)).open(first.step, None, until)
        going_on = trainer(tmp_path, resume=True, steps=13)
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(UsageError, match="another process trains in"):
            going_on.run()
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    trainer(tmp_path, resume=True, steps=13).run()


def test_the_last_few_checkpoints_are_kept(tmp_path: Path) -> None:
    trainer(tmp_path, steps=4, validate_every=1, keep=2).run()
    numbered = [f"step-0000000{step}.safetensors" for step in (3, 4)]
    assert sorted(path.name for path in tmp_path.glob("step-*")) == numbered
    last = checkpoint.load(tmp_path / "last.safetensors").state_dict()
    fourth = checkpoint.load(tmp_path / numbered[1]).state_dict()
    torch.testing.assert_close(fourth, last, rtol=0, atol=0)
    trainer(tmp_path, resume=True, steps=5, keep=0).run()
    assert not list(tmp_path.glob("step-*"))


class Spoiled(MemoryPatches):
    """From some step on, the network has a bad weight when it gets a batch."""

    model: DVMSR
    at = 7

    def batch(self, seed: int, step: int, size: int, part: slice = ALL) -> tuple[Pixels, Pixels]:
        if step == self.at:
            with torch.no_grad():
                self.model.conv_first.bias.fill_(torch.nan)
        return super().batch(seed, step, size, part)


def test_divergence_names_step_files_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    patches = Spoiled()
    run = trainer(tmp_path, patches=patches, batch=4)
    patches.model = run.model
    with pytest.raises(DvmsrError) as caught:
        run.run()
    files = patches.files(0, 7, 4)
    assert str(caught.value) == (
        f"the loss became nan at step 7 with {', '.join(files[:3])} and 1 more, listed in "
        f"{tmp_path}/log.jsonl; start anew from {tmp_path}/last.safetensors with --init and a "
        "lower --lr or --clip"
    )
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert row == {"step": 7, "error": "the loss became nan", "files": files}
    assert checkpoint.load(tmp_path / "last.safetensors")
    assert TrainState.load(tmp_path / FILE_NAME).step == 6


def test_weights_that_validation_finds_spoiled_replace_no_checkpoint(tmp_path: Path) -> None:
    patches = Spoiled()
    patches.at = 9
    run = trainer(tmp_path, patches=patches)
    patches.model = run.average
    with pytest.raises(DvmsrError) as caught:
        run.run()
    assert str(caught.value).startswith(
        "the network's results for --val became no finite numbers at step 9 with "
    )
    assert f"start anew from {tmp_path}/last.safetensors" in str(caught.value)
    for name in ("last", "best"):
        weights = checkpoint.load(tmp_path / f"{name}.safetensors").state_dict()
        assert all(tensor.isfinite().all() for tensor in weights.values())
    assert TrainState.load(tmp_path / FILE_NAME).step == 9
    assert rows(tmp_path)[-1] == {"step": 9}


def test_a_bad_gradient_spoils_no_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.model.conv_first.bias.register_hook(lambda gradient: gradient * torch.inf)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    with pytest.raises(DvmsrError, match=r"the gradient became (inf|nan) at step 0"):
        run.run()
    for now, then in zip(run.model.parameters(), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_goes_on_to_equal_bits(tmp_path: Path, precision: str) -> None:
    options: dict[str, Any] = {"precision": precision, "steps": 24, "lr": 5e-3}
    trainer(tmp_path / "whole", **options).run()
    losses = [row["loss"] for row in rows(tmp_path / "whole") if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    state = TrainState.load(tmp_path / "whole" / FILE_NAME)
    assert {tensor.dtype for tensor in state.weights.values()} == {torch.float32}
    with pytest.raises(Ended):
        trainer(tmp_path / "parts", patches=MemoryPatches(stop_at=6), **options).run()
    trainer(tmp_path / "parts", resume=True, **options).run()
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_run_shorter_than_a_report_is_in_the_log(tmp_path: Path) -> None:
    trainer(tmp_path, steps=3, log_every=2).run()
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [2, 3]


def test_divergence_stops_the_run_before_it_spoils_the_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    with torch.no_grad():
        run.model.conv_first.bias.fill_(torch.nan)
    with pytest.raises(DvmsrError, match=r"the loss became nan at step 0 with [abc]\.png") as told:
        run.run()
    assert str(told.value).endswith("; start anew with a lower --lr or --clip")
    assert not list(tmp_path.iterdir())  # nothing in the way of the next try


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_broken_resume_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / FILE_NAME
    if content is None:
        torch.save({"format": FORMAT, "step": 3}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(DvmsrError, match=r"resume\.pt is damaged or no resume file"):
        TrainState.load(path)


def test_a_resume_file_of_another_version_is_named(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / FILE_NAME)
    with pytest.raises(DvmsrError, match=r"format 99.*with the version that began it"):
        TrainState.load(tmp_path / FILE_NAME)


def assert_equal_runs(a: Path, b: Path) -> None:
    """The same weights, averages, moments and log, bit by bit."""
    for name in ("last.safetensors", "best.safetensors"):
        x, y = (checkpoint.load(folder / name).state_dict() for folder in (a, b))
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    first, second = (TrainState.load(folder / FILE_NAME) for folder in (a, b))
    torch.testing.assert_close(first.weights, second.weights, rtol=0, atol=0)
    moments = (state.optimiser["adam"]["state"] for state in (first, second))
    torch.testing.assert_close(*moments, rtol=0, atol=0)
    assert (first.step, first.best_psnr) == (second.step, second.best_psnr)
    known = {row["step"]: row for row in rows(a) if "psnr_y" in row}
    assert {row["step"]: row for row in rows(b) if "psnr_y" in row} == known
