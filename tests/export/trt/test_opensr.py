"""opensr-mamba 0.0.1, whole and with its own weights, as an engine of TensorRT for RTX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from opensr import export, skip_without_opensr
from rtx import skip_without_rtx
from tensorrt_library import build as build_plugin

from dvmsr.runtime.backends.trt import plugin_library
from dvmsr.runtime.backends.trt.engine_file import InputProfile, read_engine

pytestmark = pytest.mark.slow


def test_whole_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_opensr()
    skip_without_rtx()
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(build_plugin("found").pure))
    exported = export(tmp_path, "sr", 3, "--no-verify", "--fp16")
    assert exported.returncode == 0, exported.stderr
    program = "from dvmsr import entry; entry.dvmsr_export()"
    command = [sys.executable, "-c", program, "trt", "sr.onnx", "--target", "rtx"]
    command += ["--compute-capability", "8.6", "--max", "1x3x64x64"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "TensorRT: " not in done.stderr
    info, _ = read_engine(tmp_path / "sr.fp16.rtx.engine")
    assert info.model["dvmsr.network"] == "satellite:sr"
    assert (info.precision, info.plugin_layers) == ("fp16", 8)
    assert info.layers["fp16"] > 500
    assert info.profiles == {"x": InputProfile((1, 3, 20, 8), (1, 3, 20, 16), (1, 3, 64, 64))}
