"""Two processes that share a batch learn what one learns from the whole of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from typer.testing import CliRunner

from dvmsr import checkpoint
from dvmsr.cli import build
from dvmsr.config import DVMSRConfig
from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.model import DVMSR
from dvmsr.train.objective import Objective
from dvmsr.train.parallel import Group, join
from dvmsr.train.run.state import FILE_NAME, TrainState

PROGRAM = "from dvmsr.cli import main; main()"
CONFIG = """
data = "photos"
val = "held-out"
batch = 4
patch = 6
steps = 6
lr = 1e-2
threads = 1
position = "both"
log-every = 1
validate-every = 3
[network]
channels = 8
depths = [1]
state = 4
scale = 2
"""


def start(folder: Path, processes: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """`dvmsr distill` in several processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, "distill", *arguments]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    environments = [
        os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        for rank in range(processes)
    ]
    return [
        subprocess.Popen(command, env=env, cwd=folder, stderr=subprocess.PIPE, text=True)
        for env in environments
    ]


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes_have_the_losses_of_one_with_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("photos", 5), ("held-out", 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{name}{i}.png")
    (tmp_path / "run.toml").write_text(CONFIG)
    torch.manual_seed(0)
    teacher = DVMSR(DVMSRConfig(12, (1, 1), 4, scale=2))
    checkpoint.save(teacher, tmp_path / "t.safetensors")
    options = ("--teacher", "t.safetensors", "--config", "run.toml", "--output")
    running = start(tmp_path, 2, *options, "two", "--cache", "pixels")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    CliRunner().invoke(build(), ["distill", *options, "one"], catch_exceptions=False)
    torch.set_num_threads(threads)
    told = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    assert "in each of 2 processes" in told[0] and not told[1]
    assert len(list((tmp_path / "pixels").glob("x2-*/pixels"))) == 1

    rows = []
    for name in ("one", "two"):
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        rows.append([json.loads(line) for line in lines])
    for name in ("step", "loss", "l1", "distillation", "psnr_y"):
        one, two = ([row[name] for row in each if name in row] for each in rows)
        assert len(one) == (2 if name == "psnr_y" else 8 if name == "step" else 6)
        np.testing.assert_allclose(one, two, rtol=1e-4)  # FP32, summed in another order
    a, b = (TrainState.load(tmp_path / name / FILE_NAME) for name in ("one", "two"))
    torch.testing.assert_close(a.weights, b.weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(a.objective, b.objective, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_a_network_without_a_teacher_is_wrapped_as_well() -> None:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        model = DVMSR(DVMSRConfig(8, (1,), 4, scale=2)).to(memory_format=torch.channels_last)
        objective = Objective(model)
        wrapped = Group(size=2).wrap(objective)
        assert wrapped is not objective
        lr, hr = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 8, 8)
        assert torch.equal(wrapped(lr, hr)["loss"], objective(lr, hr)["loss"])
    finally:
        torch.distributed.destroy_process_group()


def test_processes_that_torchrun_did_not_start_are_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(MissingComponentError) as caught, join("cpu"):
        pass
    assert "2 processes cannot train together" in str(caught.value)
    assert "start them with torchrun" in str(caught.value)
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE is 'two', which is no number"), join("cpu"):
        pass


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_waits_in_vain_says_so_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer"
    with pytest.raises(DvmsrError, match="another process of the run has ended"), join("cpu"):
        raise RuntimeError(gloo)
    with pytest.raises(RuntimeError, match="a defect of ours"), join("cpu"):
        raise RuntimeError("a defect of ours")


def test_a_batch_is_shared_without_rest() -> None:
    parts = [Group(rank=rank, size=3).part(6) for rank in range(3)]
    assert [list(range(6))[part] for part in parts] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(UsageError, match="--batch 8 cannot be shared by 3 processes"):
        Group(size=3).part(8)


def test_a_process_alone_agrees_with_itself() -> None:
    group = Group()
    assert group.is_first and group.part(5) == slice(0, 5)
    assert group.mean({"loss": 0.5}) == {"loss": 0.5}
    assert (group.first(0.25), group.largest(3)) == (0.25, 3)
    module = torch.nn.Linear(1, 1)
    assert group.wrap(module) is module


@pytest.mark.parametrize(("there", "device"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, there: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    with join("auto") as group:
        assert group.device == device
