"""What is computed of a network of others before and after its engine is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from endless_model import save_endless
from onnx import parser

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, ParityError
from dvmsr.export.trt import network_parity
from dvmsr.export.trt.network_parity import check, check_finite, made_inputs
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.tensors import Example, Port
from dvmsr.runtime.backends.trt import tensors
from dvmsr.runtime.backends.trt.profiles import InputProfile

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)
LOG = """<ir_version: 8, opset_import: ["":18]>
g (float[N,4] x, int64[N] ids) => (float[N,4] y, int64[N] best, int64[N] same) {
    y = Log (x)
    best = ArgMax <axis = 1, keepdims = 0> (y)
    same = Identity (ids)
}"""
PROFILES = {"x": InputProfile((1, 4), (2, 4), (3, 4)), "ids": InputProfile((1,), (2,), (3,))}
EXAMPLE = {"x": (8, 4), "ids": (8,)}


def file(path: Path, **ranges: list[float]) -> Path:
    """The logarithm, with the ranges of its inputs if any are given."""
    model = parser.parse_model(LOG)
    if ranges:
        onnx.helper.set_model_props(
            model,
            {"dvmsr.example": json.dumps(EXAMPLE), "dvmsr.example_range": json.dumps(ranges)},
        )
    onnx.save(model, path)
    return path


def test_inputs_lie_in_the_profiles_and_the_examples_range() -> None:
    ports = {
        "x": Port(("N", 4), "float16"),
        "ids": Port(("N",), "int64"),
        "mask": Port((5,), "bool"),
        "scale": Port((), "float32"),
    }
    profiles = {
        **PROFILES,
        "mask": InputProfile((5,), (5,), (5,)),
        "scale": InputProfile((), (), ()),
    }
    examples = {"x": Example((8, 4), -3, -2), "ids": Example((8,), 4, 6), "scale": Example(())}
    made = made_inputs(ports, profiles, examples)
    assert {name: (array.shape, str(array.dtype)) for name, array in made.items()} == {
        "x": ((3, 4), "float16"), "ids": ((3,), "int64"), "mask": ((5,), "bool"),
        "scale": ((), "float32"),
    }  # fmt: skip
    assert made["x"].min() >= -3 and made["x"].max() <= -2
    assert set(made["ids"].tolist()) <= {4, 5, 6}
    many = {"ids": InputProfile((99,), (99,), (99,))}
    drawn = made_inputs({"ids": ports["ids"]}, many, {"ids": Example((99,), 4, 6)})["ids"]
    assert set(drawn.tolist()) == {4, 5, 6}


def test_values_that_are_no_numbers_are_refused_where_the_range_is_known(tmp_path: Path) -> None:
    said: list[str] = []
    good = file(tmp_path / "good.onnx", x=[1, 2], ids=[0, 5])
    check_finite(good, PROFILES, said.append)
    assert said == []
    bad = file(tmp_path / "bad.onnx", x=[-2, -1], ids=[0, 5])
    with pytest.raises(IncompatibleModelError, match="values of y in fp32 that are not finite, so"):
        check_finite(bad, PROFILES, said.append)
    assert said == []


def test_values_are_told_where_the_range_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    negative = {"x": -np.ones((2, 4), np.float32), "ids": np.zeros(2, np.int64)}
    monkeypatch.setattr(network_parity, "made_inputs", lambda *_: negative)
    check_finite(file(tmp_path / "net.onnx"), PROFILES, said.append)
    (line,) = said
    assert line.startswith("warning: ") and "not finite for inputs from 0 to 1" in line


RESHAPE = """<ir_version: 8, opset_import: ["":18]>
g (float[N,4] x) => (float[N,5] y) {
    sizes = Constant <value = int64[2] {-1, 5}> ()
    y = Reshape (x, sizes)
}"""


def test_a_file_that_cannot_be_computed_is_left_to_tensorrt(tmp_path: Path) -> None:
    onnx.save(parser.parse_model(RESHAPE), tmp_path / "net.onnx")
    said: list[str] = []
    check_finite(tmp_path / "net.onnx", {"x": PROFILES["x"]}, said.append)
    (line,) = said
    assert line.startswith("warning: the model was not computed on the processor first (ONNX Runt")


def test_a_file_without_an_end_is_left_to_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_parity, "PATIENCE", 0.1)
    save_endless(tmp_path / "net.onnx")
    said: list[str] = []
    picture = InputProfile((1, 3, 4, 4), (1, 3, 4, 4), (1, 3, 4, 4))
    check_finite(tmp_path / "net.onnx", {"input": picture}, said.append)
    (line,) = said
    assert line.endswith("computed on the processor first (it took more than 0.1 s)")


class Played:
    """An engine's network, which is off by a share of the largest value."""

    precision, error, flipped = "fp32", 0.0, 0

    def __init__(self, path: Path, trust: bool = False) -> None:
        assert trust, "what was just built may carry code"

    def __call__(self, x: Any, ids: Any) -> dict[str, Any]:
        y = np.log(x)
        off = y + np.float32(self.error * np.abs(y).max())
        best = y.argmax(1)
        best[: self.flipped] += 1
        return {"y": off, "best": best, "same": ids}


@pytest.mark.parametrize(
    ("precision", "error", "passes"),
    [
        ("fp32", 5e-4, True),
        ("fp32", 2e-3, False),
        ("fp16", 5e-3, True),
        ("fp16", 2e-2, False),
        ("fp32", np.nan, False),
    ],
)
def test_an_engine_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, error: float, passes: bool
) -> None:
    path = file(tmp_path / "net.onnx", x=[1, 2], ids=[0, 5])
    played = type("Played", (Played,), {"precision": precision, "error": error, "flipped": 1})
    monkeypatch.setattr(tensors, "EngineTensors", played)
    said: list[str] = []
    if passes:
        check(Path("x.engine"), path, PROFILES, said.append)
    else:
        with pytest.raises(
            ParityError,
            match=r"was not written: it differs from .*net\.onnx by .* is allowed; export",
        ):
            check(Path("x.engine"), path, PROFILES, said.append)
    (line,) = said
    assert line.startswith("engine against native at x 3x4, ids 3: y ")
    assert line.endswith("best 1 of 3 values differ; same 0 of 3 values differ")


def test_outputs_of_other_shapes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Played):
        def __call__(self, x: Any, ids: Any) -> dict[str, Any]:
            return {**super().__call__(x, ids), "y": np.zeros((3, 5))}

    monkeypatch.setattr(tensors, "EngineTensors", Other)
    path = file(tmp_path / "net.onnx", x=[1, 2], ids=[0, 5])
    with pytest.raises(ParityError, match=r"gives y the shape \(3, 5\), and the model \(3, 4\)"):
        check(Path("x.engine"), path, PROFILES, lambda line: None)


def test_a_comparison_that_is_impossible_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: Path, trust: bool = False) -> None:
        raise MissingComponentError("no nvcc")

    monkeypatch.setattr(tensors, "EngineTensors", missing)
    said: list[str] = []
    check(Path("x.engine"), tmp_path / "net.onnx", PROFILES, said.append)
    assert said == [f"warning: the engine was not compared with {tmp_path / 'net.onnx'} (no nvcc)"]


def test_a_file_that_no_processor_computes_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "EngineTensors", Played)
    onnx.save(parser.parse_model(RESHAPE), tmp_path / "net.onnx")
    said: list[str] = []
    check(Path("x.engine"), tmp_path / "net.onnx", {"x": PROFILES["x"]}, said.append)
    (line,) = said
    assert line.startswith(f"warning: the engine was not compared with {tmp_path / 'net.onnx'} (")


def test_an_engine_that_does_not_run_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, trust: bool = False) -> None:
        raise DvmsrError("TensorRT could not run it")

    monkeypatch.setattr(tensors, "EngineTensors", broken)
    with pytest.raises(DvmsrError, match="could not run it"):
        check(Path("x.engine"), tmp_path / "net.onnx", PROFILES, lambda line: None)
