"""opensr-mamba 0.0.1, whole and with its own weights, as an engine of TensorRT for RTX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from opensr import NEEDED, export
from rtx import skip_without_rtx
from tensorrt_library import build as build_plugin

from dvmsr.runtime.backends.trt import plugin_library
from dvmsr.runtime.backends.trt.engine_file import read_engine
from dvmsr.runtime.backends.trt.profiles import InputProfile

pytestmark = [pytest.mark.slow, *NEEDED]


@pytest.mark.parametrize(("name", "channels"), [("sr", 3), ("fusion01", 10), ("fusion02", 10)])
def test_whole_with_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, channels: int
) -> None:
    skip_without_rtx()
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(build_plugin("found").pure))
    exported = export(tmp_path, name, channels, "--no-verify", "--fp16")
    assert exported.returncode == 0, exported.stderr
    program = "from dvmsr import entry; entry.dvmsr_export()"
    command = [sys.executable, "-c", program, "trt", f"{name}.onnx", "--target", "rtx"]
    command += ["--compute-capability", "8.6", "--max", f"1x{channels}x64x64"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "TensorRT: " not in done.stderr
    info, _ = read_engine(tmp_path / f"{name}.fp16.rtx.engine")
    assert info.model["dvmsr.network"] == f"satellite:{name}"
    assert (info.precision, info.plugin_layers) == ("fp16", 8)
    assert info.layers["fp16"] > 500
    low, usual, high = ((1, channels, *size) for size in ((20, 8), (20, 16), (64, 64)))
    assert info.profiles == {"x": InputProfile(low, usual, high)}
