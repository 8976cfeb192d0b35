"""Inputs and outputs of every kind, read by Triton's definition of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from triton_config import read, tensors

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.export.triton.config import to_text
from dvmsr.export.triton.tensors import Signature
from dvmsr.runtime.backends.tensors import Port


def test_types_sizes_and_scalars(tmp_path: Path) -> None:
    inputs = {
        "x": Port(("batch", 3, "height"), "float16"),
        "mask": Port((2, 4), "bool", optional=True),
        "step": Port((), "int64"),
        "text": Port(("n",), "object"),
    }
    usual = {"x": (2, 3, 9), "mask": (2, 4), "step": (), "text": (1,)}
    signature = Signature("net", inputs, {"y": Port(("batch", 5), "bfloat16")}, usual)
    text = to_text(signature.fields(signature.max_batch(None)))
    (tmp_path / "config.pbtxt").write_text(text)
    config = read(tmp_path)
    assert config.max_batch_size == 0
    assert tensors(config.input) == {
        "x": ("TYPE_FP16", [-1, 3, -1]),
        "mask": ("TYPE_BOOL", [2, 4]),
        "step": ("TYPE_INT64", [1]),
        "text": ("TYPE_STRING", [-1]),
    }
    assert [port.optional for port in config.input] == [False, True, False, False]
    assert [port.HasField("reshape") for port in config.input] == [False, False, True, False]
    assert tensors(config.output) == {"y": ("TYPE_BF16", [-1, 5])}
    warmed = {name: list(one.dims) for name, one in config.model_warmup[0].inputs.items()}
    assert warmed == {"x": [2, 3, 9], "mask": [2, 4], "step": [1], "text": [1]}


def test_a_batch_is_the_first_axis_of_all(tmp_path: Path) -> None:
    x = {"x": Port(("batch", 3), "float32")}
    signature = Signature("net", x, {"y": Port(("batch",), "float32")}, {"x": (4, 3)})
    assert signature.max_batch(None) == 8 and signature.max_batch(2) == 2
    (tmp_path / "config.pbtxt").write_text(to_text(signature.fields(2)))
    config = read(tmp_path)
    assert tensors(config.input) == {"x": ("TYPE_FP32", [3])}
    assert tensors(config.output) == {"y": ("TYPE_FP32", [1])}
    assert list(config.model_warmup[0].inputs["x"].dims) == [3]
    assert config.model_warmup[0].batch_size == 2
    for other in (
        Port((2, "batch"), "float32"),
        Port(("2*batch",), "float32"),
        Port((), "float32"),
    ):
        assert not Signature("net", x, {"y": other}, {}).takes_batches
    with pytest.raises(UsageError, match="net has tensors whose first axis is no batch of any"):
        Signature("net", {"x": Port((1, 3), "float32")}, {}, {}).max_batch(4)


@pytest.mark.parametrize(
    ("port", "said"),
    [
        (Port(None, "float32"), "net does not tell the shape of x; export it again"),
        (Port((3,), "complex64"), "net has tensors of type complex64, which Triton does not know"),
    ],
)
def test_what_triton_does_not_know(port: Port, said: str) -> None:
    with pytest.raises(IncompatibleModelError, match=said):
        Signature("net", {"x": port}, {}, {}).fields(0)
