"""What docs/tensorrt.md tells other tools to do, as far as that goes without TensorRT."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from pathlib import Path

import pytest
from shared import REPOSITORY
from small_model import Models

from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime

TEXT = (REPOSITORY / "docs" / "tensorrt.md").read_text()


@pytest.mark.skipif(cpu.library_path() is None, reason="needs the native operators")
def test_onnx_runtime_loads_the_stripped_model(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU here; whatever the provider is, it wants the operators registered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGISTER", "libdvmsr_trt10_register.so")
    shutil.copy(models.onnx_fp16, "half.onnx")
    strip, load = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(strip, {})
    found: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no such provider here
        exec(load, found)
    session = found["session"]
    assert isinstance(session, onnxruntime.InferenceSession)
    assert [value.name for value in session.get_inputs()] == ["input"]
    with pytest.raises(Exception, match="not a registered function"):
        onnxruntime.InferenceSession("stripped.onnx", providers=["CPUExecutionProvider"])


def test_trtexec_is_told_all_that_a_plan_with_its_plugin_takes() -> None:
    (line,) = (line for line in TEXT.splitlines() if "--setPluginsToSerialize" in line)
    words = shlex.split(line.split("`")[1])
    assert words == [
        "--dynamicPlugins=$PURE",
        "--setPluginsToSerialize=$PURE",
        "--versionCompatible",
    ]
