"""Which model is opened how."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest
from foreign_model import save_foreign
from one_node import one_node_model

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.export.onnx import bodies
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model
from dvmsr.runtime.backends import table

onnx = pytest.importorskip("onnx")


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.onnx"
    model = one_node_model("SelectiveScan", gate=False)
    bodies.attach(model)
    onnx.save(model, path)
    return path


def test_names_of_bundled_models() -> None:
    model = open_model("student", "portable")
    assert (list(model.inputs), model.backend) == (["input"], "portable")


def test_files_without_our_operators_need_no_library(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_model(save_foreign(tmp_path / "m.onnx", "Clip")).backend == "portable"


def test_without_the_library_a_scan_is_slow(
    scan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "library_path", lambda: None)
    with pytest.warns(UserWarning, match="which are several times slower"):
        assert open_model(scan_file).backend == "portable"
    with pytest.raises(MissingComponentError, match="without its native operators"):
        open_model(scan_file, "native")


def test_a_file_without_bodies(scan_file: Path) -> None:
    model = onnx.load(scan_file)
    del model.functions[:]
    onnx.save(model, scan_file)
    with pytest.raises(IncompatibleModelError, match="no portable operator bodies"):
        open_model(scan_file, "portable")


@pytest.mark.parametrize(
    ("model", "backend", "kind", "message"),
    [
        ("own_network:named", "native", UsageError, "onnx own_network:named`"),
        ("own_network:named", "cuda", UsageError, "backend cuda runs ONNX files"),
        ("own_network:named", "fast", UsageError, "no backend fast; there are auto, native"),
        ("scan.onnx", "torch", UsageError, "backend torch runs checkpoints, not"),
        ("own_network", None, UsageError, r"no model named own_network.*package\.module:factory"),
        ("none.onnx", None, UsageError, r"none\.onnx does not exist"),
        ("nowhere:none", None, UsageError, "no module nowhere"),
    ],
)
def test_what_does_not_fit(
    scan_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    backend: str | None,
    kind: type[DvmsrError],
    message: str,
) -> None:
    monkeypatch.chdir(scan_file.parent)
    with pytest.raises(kind, match=message):
        open_model(model, backend)


def test_a_factory_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table.driver, "first", lambda: object())
    monkeypatch.setattr("dvmsr.runtime.backends.trt.library.import_tensorrt", print)
    with pytest.raises(UsageError, match=r"onnx own_network:named`, an engine of that with"):
        open_model("own_network:named", "tensorrt")


def test_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the class that runs them, which is told whether to trust the file."""
    fake = ModuleType("dvmsr.runtime.backends.trt.tensors")
    fake.EngineTensors = lambda path, trust: (path, trust)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    path = tmp_path / "m.engine"
    path.touch()
    assert open_model(path) == (path, False)
    assert open_model(path, "tensorrt", trust_engine=True) == (path, True)
    with pytest.raises(UsageError, match="is a TensorRT engine; leave out the backend native"):
        open_model(path, "native")
