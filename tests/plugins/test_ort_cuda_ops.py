"""The custom operators over the CUDA kernels: ONNX Runtime on the CPU, on an emulated device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from mixer_model import mixer_model
from mixer_vectors import MIXER_TOLERANCE, MixerCase, mixer_inputs, mixer_truth
from one_node import one_node_model
from vectors import (
    TOLERANCE,
    ConvCase,
    ScanCase,
    cast,
    conv_inputs,
    conv_truth,
    error,
    scan_inputs,
    scan_truth,
)

from dvmsr.export.onnx import bodies
from dvmsr.runtime.backends.onnxrt.library import onnxruntime as ort

SCANS = [ScanCase(1, 1, 1, 1), ScanCase(2, 65, 120, 16), ScanCase(1, 700, 20, 16, "slow decay")]
CONVS = [ConvCase(1, 0, 5, 4), ConvCase(2, 33, 120, 4), ConvCase(3, 9, 16, 7)]


def run(
    library: Path, operator: str, inputs: dict[str, np.ndarray], dtype: str
) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library))
    model = one_node_model(operator, dtype).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    first = session.run(None, inputs)
    again = session.run(None, inputs)  # in workspace that was used before
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    return first


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", SCANS, ids=str)
def test_scan(cuda_on_host: Path, case: ScanCase, dtype: str) -> None:
    inputs = cast(scan_inputs(case), dtype)
    outputs = run(cuda_on_host, "SelectiveScan", inputs, dtype)
    for output, truth in zip(outputs, scan_truth(inputs), strict=True):
        assert error(output, truth) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", CONVS, ids=str)
def test_conv(cuda_on_host: Path, case: ConvCase, dtype: str) -> None:
    inputs = cast(conv_inputs(case), dtype)
    outputs = run(cuda_on_host, "CausalConv1d", inputs, dtype)
    for output, truth in zip(outputs, conv_truth(inputs), strict=True):
        assert error(output, truth) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_parts_of_a_mixer_are_computed(cuda_on_host: Path, tmp_path: Path, dtype: str) -> None:
    """ONNX Runtime puts them in the place of an operator that the library does not have."""
    inputs = mixer_inputs(MixerCase(2, 33, 20, 16), dtype)
    model = mixer_model(inputs)
    bodies.attach(model)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.register_custom_ops_library(str(cuda_on_host))
    data = model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    for output, truth in zip(session.run(None, inputs), mixer_truth(inputs), strict=True):
        assert error(output, truth) <= MIXER_TOLERANCE[dtype]
    nodes = onnx.load(tmp_path / "run.onnx").graph.node
    assert [node.op_type for node in nodes if node.domain == "dvmsr"] == [
        "CausalConv1d",
        "SelectiveScan",
    ]


def test_channel_major_tensors_are_refused_at_load(cuda_on_host: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(cuda_on_host))
    for value, refused in ((0, False), (1, True)):
        model = one_node_model("SelectiveScan", channel_major=value).SerializeToString()
        if not refused:
            ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            continue
        message = "dvmsr SelectiveScan: channel_major is 1, but .* write the transposes out with"
        with pytest.raises(Exception, match=message):
            ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_too_many_states_are_an_error(cuda_on_host: Path) -> None:
    inputs = cast(scan_inputs(ScanCase(1, 3, 5, 65)), "float32")
    with pytest.raises(Exception, match=r"dvmsr SelectiveScan: CUDA failed \(invalid argument\)"):
        run(cuda_on_host, "SelectiveScan", inputs, "float32")
