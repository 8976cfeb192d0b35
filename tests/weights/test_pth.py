"""Checkpoints read without PyTorch, against what PyTorch reads."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_network
from shared import official_weights, requires_shared

from dvmsr.weights import pth


def check(path: Path, state: dict[str, torch.Tensor]) -> None:
    found = pth.read(path)
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("key", [None, "params", "params_ema"])
def test_reads_what_torch_wrote(tmp_path: Path, key: str | None) -> None:
    state = random_network().state_dict()
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"params": other, key: state} if key else state, path := tmp_path / "m.pth")
    check(path, state)


def test_tensors_may_share_a_storage(tmp_path: Path) -> None:
    both = torch.arange(12.0)
    state = {"all": both.view(3, 4), "part": both[4:8], "one": both[5]}
    torch.save(state, path := tmp_path / "m.pth")
    check(path, state)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("m.pth", "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({"a": Harmful()}, protocol))
    with pytest.raises(ValueError, match=r"\.mkdir is no part of a tensor"):
        pth.read(Path("m.pth"))
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, 3).T, "a tensor has the strides"),
        (torch.ones(2, dtype=torch.float16), r"torch\.HalfStorage is no part of a tensor"),
    ],
)
def test_refuses_other_tensors(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    torch.save({"a": tensor}, path := tmp_path / "m.pth")
    with pytest.raises(ValueError, match=message):
        pth.read(path)


@requires_shared
@pytest.mark.parametrize("name", ["dvmsr_df2k", "dvmsr_ntire"])
def test_reads_the_official_files(name: str) -> None:
    path = official_weights(name)
    content = torch.load(path, weights_only=True)
    check(path, content.get("params_ema", content))
