"""Files without functions, in ONNX Runtime and in OpenVINO, against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import SMALL, random_network

from dvmsr.config import DVMSRConfig
from dvmsr.data.natural_image import natural_image
from dvmsr.errors import IncompatibleModelError
from dvmsr.export.onnx.export import export_onnx, make_model
from dvmsr.export.onnx.graph import OPSETS
from dvmsr.model import DVMSR
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.onnx_file import read_header
from dvmsr.runtime.backends.onnxrt.streaming import open_onnx
from dvmsr.strips import states

CONFIGS = {
    "small": SMALL,
    "static, several blocks": DVMSRConfig(channels=8, depths=(2, 1), state=4, scale=2),
    "bidirectional": DVMSRConfig(channels=8, depths=(1,), state=4, scale=2, bidirectional=True),
}
KINDS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bidirectional": {},
    "fp16": {"precision": "fp16"},
    "static": {"static_shape": (1, 9, 21)},
    "static, several blocks": {"static_shape": (1, 9, 21)},
    "streaming": {"streaming": True},
    "first opset": {"opset": OPSETS[0]},
    "last opset": {"opset": OPSETS[-1]},
}
IMAGE = natural_image((1, 9, 21))


@pytest.fixture(scope="module", params=KINDS)
def inlined(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DVMSR, onnx.ModelProto]:
    network = random_network(CONFIGS.get(request.param, SMALL), spread=0.02)
    options = {"precision": "fp32", **KINDS[request.param]}
    return network, make_model(network, **options, inline=True)[0]


def feeds(network: DVMSR, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The inputs by name: an image that is a strip of all its rows, with all states empty."""
    types = {
        i.name: onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
        for i in model.graph.input
    }
    arrays = {"input": IMAGE, "top": np.ones(1), "bottom": np.ones(1)}
    if "top" in types:
        shapes = {state.name: state.shape(1, IMAGE.shape[3]) for state in states(network.config)}
        arrays |= {name: np.zeros(shape) for name, shape in shapes.items()}
    return {name: arrays[name].astype(kind) for name, kind in types.items()}


def assert_equals_pytorch(network: DVMSR, model: onnx.ModelProto, output: np.ndarray) -> None:
    """To 2e-4, and in half precision to 60 dB."""
    with torch.inference_mode():
        error = np.asarray(output, np.float32) - network(torch.from_numpy(IMAGE)).numpy()
    if output.dtype == np.float16:
        assert -10 * np.log10(np.mean(error**2)) > 60
    else:
        assert np.abs(error).max() < 2e-4


def test_onnx_runtime_alone_runs_it(inlined: tuple[DVMSR, onnx.ModelProto]) -> None:
    network, model = inlined
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions
    assert [entry.domain for entry in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert_equals_pytorch(network, model, session.run(["output"], feeds(network, model))[0])


def test_openvino_runs_it(inlined: tuple[DVMSR, onnx.ModelProto], tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO: pip install openvino")
    network, model = inlined
    onnx.save(model, tmp_path / "m.onnx")
    # Left to itself, it computes FP32 files in half precision on some processors.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", exact)
    assert_equals_pytorch(network, model, compiled(feeds(network, model))["output"])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_file_is_verified_and_runs_as_portable_alone(tmp_path: Path, streaming: bool) -> None:
    path = tmp_path / "m.onnx"
    options = {"inline": True, "streaming": streaming, "progress": lambda line: None}
    report = export_onnx(random_network(), path, **options)
    assert {parity.backend for parity in report.parity} == {"portable"}
    assert not read_header(path).has_operators
    for backend in ("native", "cuda"):
        message = (
            rf"m\.onnx .*written out.* the backend {backend} has nothing to run; use .*portable"
        )
        with pytest.raises(IncompatibleModelError, match=message):
            open_onnx(path, backend, None)
