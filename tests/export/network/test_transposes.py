"""Transposes on which ONNX Runtime ends the process; so they are loaded in another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from turned_product import turned_product

from dvmsr.export.network.transposes import keep_apart

RUN = """
import sys
import numpy as np
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(None, {"x": np.load(sys.argv[2])})[0])
"""


@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "static"])
@pytest.mark.parametrize(
    ("axes", "shape", "cast_from"),
    [
        ([1, 0, 2], (2, 3, 4), 0),
        ([1, 2, 0], (4, 2, 3), 0),
        ([1, 2, 0, 3], (2, 3, 5, 4), 0),
        ([1, 2, 3, 0], (4, 2, 3, 5), 0),
        ([1, 0, 2], (2, 3, 4), TensorProto.INT8),
    ],
)
def test_a_product_after_one_can_be_loaded(
    tmp_path: Path, axes: list[int], shape: tuple[int, ...], cast_from: int, dynamic: bool
) -> None:
    names: list[int | str] = [size if size == 4 else f"n{size}" for size in shape]
    model = turned_product(axes, names if dynamic else list(shape), cast_from)
    assert keep_apart(model.graph, half=not cast_from) == 1
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "m.onnx")
    x = np.arange(np.prod(shape)).reshape(shape).astype(np.int8 if cast_from else np.float16)
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("m.onnx", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", RUN, *files], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), x.transpose(axes))


@pytest.mark.parametrize("axes", [[0, 2, 1], [2, 0, 1], [2, 1, 0]])
def test_others_stay_as_they_are(axes: list[int]) -> None:
    model = turned_product(axes, ["a", "b", 4])
    before = model.SerializeToString()
    assert keep_apart(model.graph, half=True) == 0
    assert model.SerializeToString() == before


def test_in_fp32_without_a_cast_they_stay() -> None:
    model = turned_product([1, 0, 2], [2, 3, 4])
    assert keep_apart(model.graph, half=False) == 0
