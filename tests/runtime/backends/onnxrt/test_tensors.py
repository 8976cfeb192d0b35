"""Arrays in and out of ONNX networks of any kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from one_node import one_node_model
from turned_product import turned_product
from vectors import ScanCase, cast, error, scan_inputs, scan_truth

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)
CASE = ScanCase(1, 9, 6, 4, groups=2, gate=False)


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.onnx"
    onnx.save(one_node_model("SelectiveScan", gate=False), path)
    return path


def test_names_shapes_and_values(scan_file: Path) -> None:
    model = open_model(scan_file)
    assert model.backend == "native"
    assert str(model.inputs["B"]) == "float32 (B, L, G, N)"
    assert list(model.outputs) == ["y", "h_last"]
    inputs = scan_inputs(CASE)  # FP64, which is converted
    outputs = model(**inputs)
    for name, truth in zip(("y", "h_last"), scan_truth(cast(inputs, "float32")), strict=True):
        assert error(outputs[name], truth) <= 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros(1)}, "has no input x; it takes u, delta"),
        ({"u": None}, r"needs the input u: float32 \(B, L, D\)"),
        ({"u": np.zeros((1, 9), np.float32)}, r"u has shape \(1, 9\), but .* takes float32"),
        ({"u": np.zeros((1, 9, 6), np.int64)}, r"u is int64, but .* takes float32"),
    ],
)
def test_bad_arrays(scan_file: Path, change: dict[str, object], message: str) -> None:
    arrays = {name: v for name, v in {**scan_inputs(CASE), **change}.items() if v is not None}
    with pytest.raises(UsageError, match=message):
        open_model(scan_file)(**arrays)


@pytest.mark.parametrize("backend", ["native", "portable"])
def test_half_precision_of_other_exporters_ends_no_process(tmp_path: Path, backend: str) -> None:
    """By itself ONNX Runtime ends it where it loads the file, so that is done in another one."""
    onnx.save(turned_product([1, 0, 2], ["a", "b", 4]), tmp_path / "m.onnx")
    x = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    np.save(tmp_path / "x.npy", x)
    code = f"""
import numpy as np
from dvmsr.runtime import open_model
np.save("y.npy", open_model("m.onnx", {backend!r})(x=np.load("x.npy"))["y"])
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), x.transpose(1, 0, 2))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_model(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(IncompatibleModelError, match="no ONNX file or damaged"):
        open_model(tmp_path / "text.onnx")


@pytest.mark.parametrize(
    ("key", "text"),
    [("example", "{"), ("example", "[]"), ("example_range", "x"), ("precision", "int8")],
)
def test_damaged_properties_are_named(scan_file: Path, key: str, text: str) -> None:
    model = onnx.load(scan_file)
    onnx.helper.set_model_props(model, {f"dvmsr.{key}": text})
    onnx.save(model, scan_file)
    with pytest.raises(IncompatibleModelError, match=rf"scan\.onnx has a damaged dvmsr\.{key}; ex"):
        open_model(scan_file)
