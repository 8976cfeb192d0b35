"""Repositories for the Python backend; what runs there is tested in `test_model.py`."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from networks import random_network
from PIL import Image
from triton_config import read, tensors

from dvmsr import checkpoint

Export = Callable[..., int]


def served(model: Path) -> dict[str, str]:
    """What `model.py` is told."""
    return {key: value.string_value for key, value in read(model).parameters.items()}


def test_a_checkpoint(tmp_path: Path, export: Export) -> None:
    file = tmp_path / "net.safetensors"
    checkpoint.save(random_network(), file)
    assert export(file, "-o", tmp_path / "models", "--instances", 3) == 0
    for name, kind in (("net", "images"), ("net-pictures", "pictures")):
        model = tmp_path / "models" / name
        assert served(model) == {
            "runtime_backend": "auto",
            "serves": kind,
            "model": "net.safetensors",
            "max_pixels": "16000000",
        }
        assert (model / "1" / "net.safetensors").read_bytes() == file.read_bytes()
        (group,) = read(model).instance_group
        assert group.count == 3 and group.kind == 2  # KIND_CPU


def test_the_first_picture(tmp_path: Path, export: Export) -> None:
    assert export("student", "-o", tmp_path) == 0
    data = (tmp_path / "student-pictures" / "warmup" / "picture").read_bytes()
    assert struct.unpack("<I", data[:4]) == (len(data) - 4,)
    with Image.open(io.BytesIO(data[4:])) as image:
        assert image.size == (64, 64)


@pytest.mark.slow
def test_networks_of_others(
    tmp_path: Path, export: Export, exported: Callable[[str], Path]
) -> None:
    files = [exported(name) for name in ("gated", "in_windows", "enlarge")]
    files[-1] = Path(f"{files[-1]}@255")
    assert export(*files, "-o", tmp_path, "--backend", "python") == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "gated",
        *(f"{n}{e}" for n in ("in_windows", "enlarge") for e in ("", "-pictures")),
    }
    assert served(tmp_path / "gated")["serves"] == "tensors"
    assert served(tmp_path / "enlarge-pictures")["model"] == "enlarge.onnx@255"
    assert tensors(read(tmp_path / "gated").output) == {
        "tokens_out": ("TYPE_FP32", [-1, -1, 8]),
        "states": ("TYPE_FP32", [2, -1, 8, 4]),
    }
