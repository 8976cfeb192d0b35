"""What other people's tools make of an exported file: it computes the same, or a sentence says why
not."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
from networks import random_network
from small_model import ONNX_BACKENDS

from dvmsr.data.natural_image import natural_image
from dvmsr.errors import IncompatibleModelError
from dvmsr.export.onnx.export import export_onnx
from dvmsr.kernels import cpu
from dvmsr.runtime import Upscaler
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.streaming import open_onnx

QUANTIZATION = import_module(f"{onnxruntime.__name__}.quantization")
CONVERTER = import_module(f"{onnxruntime.__name__}.transformers.float16")

KINDS = {
    "fp32": {},
    "fp16": {"precision": "fp16"},
    "static": {"static_shape": (1, 16, 24)},
    "streaming": {"streaming": True},
}


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tools") / f"{request.param}.onnx"
    export_onnx(random_network(spread=0.02), path, verify=False, **KINDS[request.param])
    return path


def computed(path: Path, backend: str) -> np.ndarray:
    network = open_onnx(path, backend, threads=1)
    image = natural_image((1, 16, 24))
    return network(image) if not network.streams else next(network.stream([image]))


def slimmed(source: Path, target: Path) -> None:
    onnxslim = pytest.importorskip("onnxslim", reason="needs onnxslim, a package of the extra dev")
    onnx.save(onnxslim.slim(str(source)), target)


def simplified(source: Path, target: Path) -> None:
    onnxsim = pytest.importorskip("onnxsim", reason="needs onnxsim, a package of the extra dev")
    onnx.save(onnxsim.simplify(onnx.load(source))[0], target)


def quantised(source: Path, target: Path, kind: Any = QUANTIZATION.QuantType.QUInt8) -> None:
    QUANTIZATION.quantize_dynamic(source, target, weight_type=kind)


def parted(source: Path, target: Path) -> None:
    """As docs/onnx.md says."""
    composed = ["MambaMixer", "Conv3x3", "StripConv3x3", "StripAdd"]
    functions = [("dvmsr", name) for name in composed]
    onnx.save(onnx.inliner.inline_selected_functions(onnx.load(source), functions), target)


def inlined(source: Path, target: Path) -> None:
    onnx.save(onnx.inliner.inline_local_functions(onnx.load(source)), target)


def optimised(source: Path, target: Path, library: Path | None = None) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(target)
    if library is not None:
        options.register_custom_ops_library(str(library))
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
@pytest.mark.parametrize("tool", [slimmed, simplified, parted])
def test_what_keeps_the_bodies_keeps_both_backends(
    exported: Path, tmp_path: Path, tool: Callable[[Path, Path], None], backend: str
) -> None:
    tool(exported, tmp_path / "m.onnx")
    difference = np.abs(computed(tmp_path / "m.onnx", backend) - computed(exported, backend))
    assert difference.max() < (2e-3 if exported.stem == "fp16" else 1e-5)


@pytest.mark.parametrize("tool", [inlined, optimised])
def test_what_writes_the_bodies_out_keeps_the_portable_backend(
    exported: Path, tmp_path: Path, tool: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "m.onnx"
    tool(exported, path)
    difference = np.abs(computed(path, "portable") - computed(exported, "portable"))
    assert difference.max() < (2e-3 if exported.stem == "fp16" else 1e-5)
    with pytest.raises(IncompatibleModelError, match=r"m\.onnx .*written out.* backend portable"):
        computed(path, "native")
    with pytest.warns(UserWarning, match="written out in standard ones, which are several times"):
        assert Upscaler.from_file(path).backend == "portable"


@pytest.mark.skipif(not cpu.library_path(), reason="no native operators")
def test_what_is_optimised_for_the_native_backend_keeps_that(
    exported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    optimised(exported, path, cpu.library_path())
    difference = np.abs(computed(path, "native") - computed(exported, "native"))
    assert difference.max() < (2e-3 if exported.stem == "fp16" else 1e-5)
    with pytest.raises(IncompatibleModelError, match=r"m\.onnx has no portable .* backend native"):
        computed(path, "portable")


@pytest.fixture
def _without_advice() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("_without_advice")
@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_quantising_keeps_both_backends(exported: Path, tmp_path: Path, backend: str) -> None:
    """Parts in FP32: to 8-bit weights and activations, hence to 30 dB. Inside operators it sees
    nothing."""
    quantised(exported, path := tmp_path / "m.onnx")
    np.testing.assert_array_equal(computed(path, backend), computed(exported, backend))
    parted(exported, tmp_path / "parts.onnx")
    quantised(tmp_path / "parts.onnx", path)
    if exported.stem == "fp16":
        with pytest.raises(IncompatibleModelError, match=r"m\.onnx cannot be loaded by ONNX Run"):
            computed(path, backend)
        return
    nodes = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert (nodes["MatMulInteger"], nodes["ConvInteger"]) == (7, 4)
    assert nodes["MatMul"] == nodes["Conv"] == 0
    error = computed(path, backend) - computed(exported, backend)
    assert -10 * np.log10(np.mean(error**2)) > 30


def test_half_by_another_converter(tmp_path: Path) -> None:
    """Which does not know what must stay FP32."""
    export_onnx(random_network(spread=0.02), tmp_path / "a.onnx", verify=False)
    model = CONVERTER.convert_float_to_float16(
        onnx.load(tmp_path / "a.onnx"), op_block_list=["MambaMixer", "Conv3x3"]
    )
    onnx.save(model, path := tmp_path / "m.onnx")
    for backend in ONNX_BACKENDS:
        error = computed(path, backend) - computed(tmp_path / "a.onnx", backend)
        assert np.abs(error).max() < 2e-3
