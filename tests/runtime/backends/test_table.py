"""Which backend runs which file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dvmsr.errors import MissingComponentError, UsageError
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.table import BACKENDS, NAMES, choose, needs_gpu
from dvmsr.weights.registry import SUFFIXES

TAKEN = {".onnx": "native", ".safetensors": "torch", ".pth": "torch", ".pt": "torch"}
TAKEN[".engine"] = "tensorrt"


@pytest.fixture(autouse=True)
def _native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "library_path", lambda: Path("here"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_auto_takes_every_kind_of_file(suffix: str) -> None:
    assert choose("auto", "m", Path(f"m{suffix}")).name == TAKEN[suffix]
    assert choose("auto", "m", Path(f"m{suffix.upper()}")).name == TAKEN[suffix]


def test_auto_warns_of_a_drawback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "library_path", lambda: None)
    with pytest.warns(UserWarning, match="without its native operators and uses the portable"):
        assert choose("auto", "m", Path("m.onnx")).name == "portable"


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_backend_takes_its_files_only(
    name: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    path = Path(f"m{suffix}")
    takes = {"torch": TAKEN[suffix] == "torch", "tensorrt": suffix == ".engine"}
    if takes.get(name, suffix == ".onnx"):
        assert choose(name, "m", path).name == name
        return
    complaints = {
        "torch": (UsageError, rf"backend torch runs checkpoints, not m\{suffix}; leave out"),
        "tensorrt": (MissingComponentError, "the backend tensorrt cannot be used: "),
    }
    error, complaint = complaints.get(name, (UsageError, f"backend {name} runs ONNX files; make"))
    if suffix == ".engine":
        complaint = rf"m\.engine is a TensorRT engine; leave out the backend {name}"
    with pytest.raises(error, match=complaint):
        choose(name, "m", path)


def test_an_unknown_backend() -> None:
    with pytest.raises(UsageError, match=f"no backend vulkan; there are {', '.join(NAMES)}"):
        choose("vulkan", "m", Path("m.onnx"))


@pytest.mark.parametrize(
    ("name", "model", "needed"),
    [
        ("auto", "student", False),
        ("auto", "m.onnx", False),
        ("auto", "m.pth", False),
        ("auto", "m.Engine", True),
        ("tensorrt", "m.engine", True),
        ("cuda", "student", True),
        ("native", "student", False),
    ],
)
def test_what_needs_a_gpu(name: str, model: str, needed: bool) -> None:
    assert needs_gpu(name, model) == needed


def test_no_library_of_a_backend_comes_before_a_file() -> None:
    code = (
        "import sys, dvmsr.runtime.upscaler\n"
        "print({'torch', 'onnxruntime', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
