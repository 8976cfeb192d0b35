"""Repositories for the ONNX Runtime backend, run by ONNX Runtime as that backend loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import random_network
from numpy.typing import NDArray
from triton_config import read, tensors

from dvmsr.export.onnx.export import export_onnx
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model
from dvmsr.runtime.backends.onnxrt.library import onnxruntime

native = pytest.mark.skipif(not cpu.library_path(), reason="no native operators")
Export = Callable[..., int]


def run(model: Path, arrays: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """What ONNX Runtime makes of the file, with the libraries of operators that config.pbtxt
    names."""
    options = onnxruntime.SessionOptions()
    for library in read(model).model_operations.op_library_filename:
        options.register_custom_ops_library(library)
    file = str(model / "1" / "model.onnx")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session.run(None, arrays)


@pytest.fixture
def picture() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((2, 3, 9, 7), np.float32)


@native
def test_with_the_library_of_operators(
    tmp_path: Path, export: Export, picture: NDArray[np.float32]
) -> None:
    assert export("student", "-o", tmp_path, "--backend", "onnxruntime", "--max-batch", 4) == 0
    model = tmp_path / "student"
    config = read(model)
    (library,) = config.model_operations.op_library_filename
    assert Path(library).parent == model
    assert config.backend == "onnxruntime" and config.max_batch_size == 4
    assert tensors(config.input) == {"input": ("TYPE_FP32", [3, -1, -1])}
    assert tensors(config.output) == {"output": ("TYPE_FP32", [3, -1, -1])}
    assert config.HasField("dynamic_batching") and config.model_warmup[0].batch_size == 1
    assert list(config.model_warmup[0].inputs["input"].dims) == [3, 64, 64]
    (made,) = run(model, {"input": picture})
    expected = open_model("student", "native")(input=picture)["output"]
    np.testing.assert_array_equal(made, expected)


@native
def test_where_the_server_finds_the_library(tmp_path: Path, export: Export) -> None:
    words = ("student", "-o", tmp_path, "--backend", "onnxruntime", "--mounted-at", "/models")
    assert export(*words) == 0
    library = cpu.library_path()
    assert library
    (named,) = read(tmp_path / "student").model_operations.op_library_filename
    assert named == f"/models/student/{library.name}"
    assert (tmp_path / "student" / library.name).read_bytes() == library.read_bytes()


def test_a_file_of_standard_operators_needs_no_library(
    tmp_path: Path, export: Export, picture: NDArray[np.float32]
) -> None:
    file = tmp_path / "net.onnx"
    export_onnx(random_network(), file, verify=False, inline=True)
    assert export(file, "-o", tmp_path / "models") == 0
    model = tmp_path / "models" / "net"
    assert not read(model).HasField("model_operations")
    assert {path.name for path in model.iterdir()} == {"1", "config.pbtxt", "dvmsr.json"}
    (made,) = run(model, {"input": picture})
    expected = open_model(file, "portable")(input=picture)["output"]
    np.testing.assert_array_equal(made, expected)


def test_a_file_of_one_size_has_no_batches(
    tmp_path: Path, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.onnx"
    export_onnx(random_network(), file, verify=False, static_shape=(1, 5, 7))
    assert export(file, "-o", tmp_path / "models") == 0
    config = read(tmp_path / "models" / "net")
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert tensors(config.input) == {"input": ("TYPE_FP32", [1, 3, 5, 7])}
    assert list(config.model_warmup[0].inputs["input"].dims) == [1, 3, 5, 7]
    assert export(file, "-o", tmp_path / "others", "--max-batch", 2) == 2
    assert "whose first axis is no batch of any size" in capsys.readouterr().err
    assert not (tmp_path / "others").exists()


@pytest.mark.slow
@native
@pytest.mark.parametrize(
    ("network", "sizes", "warmed", "most"),
    [("enlarge", [3, -1, -1], [3, 12, 16], 8), ("gated", [-1, -1, 8], [2, 5, 8], 0)],
)
def test_networks_of_others(
    network: str,
    sizes: list[int],
    warmed: list[int],
    most: int,
    tmp_path: Path,
    export: Export,
    exported: Callable[[str], Path],
) -> None:
    """An output of the second has its batch on another axis: Triton must not put it together."""
    assert export(exported(network), "-o", tmp_path, "--instances", 2) == 0
    config = read(tmp_path / network)
    ((name, taken),) = tensors(config.input).items()
    assert taken == ("TYPE_FP32", sizes) and config.max_batch_size == most
    assert config.HasField("dynamic_batching") == bool(most)
    assert list(config.model_warmup[0].inputs[name].dims) == warmed
    assert config.model_warmup[0].batch_size == 1 and config.instance_group[0].count == 2
    shape = [2, *sizes] if most else sizes
    given = {name: np.random.default_rng(0).random([4 if n < 0 else n for n in shape], np.float32)}
    expected = open_model(exported(network))(**given)
    for made, wanted in zip(run(tmp_path / network, given), expected.values(), strict=True):
        np.testing.assert_array_equal(made, wanted)


def test_what_it_does_not_serve(
    tmp_path: Path, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    streaming = tmp_path / "s.onnx"
    export_onnx(random_network(), streaming, verify=False, streaming=True)
    apart = tmp_path / "apart.onnx"
    export_onnx(random_network(), apart, verify=False)
    onnx.save(onnx.load(apart), apart, save_as_external_data=True, location="apart.onnx.data")
    checkpoint = tmp_path / "c.safetensors"
    checkpoint.touch()
    for file, said in (
        (streaming, "computes strips, which Triton's ONNX Runtime backend does not put together"),
        (apart, "has its weights in apart.onnx.data; export it as one file"),
        (checkpoint, "the ONNX Runtime backend takes .onnx files, not "),
    ):
        words = (file, "-o", tmp_path / "models", "--backend", "onnxruntime")
        assert export(*words) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "models").exists()
