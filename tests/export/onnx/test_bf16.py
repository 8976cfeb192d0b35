"""The graph in bfloat16, which no CPU kernel of ONNX Runtime computes, by rounding in FP32.

Every arithmetic node computes in FP32 on values that bfloat16 can hold, and its output is rounded
to one of them: what a GPU does that multiplies bfloat16 and accumulates in FP32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import dvmsr
from dvmsr.data.natural_image import natural_image
from dvmsr.export.onnx.export import make_model
from dvmsr.export.trt.pictures import BF16_OPSET
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt import composed
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.parity.limits import default_limits

ARITHMETIC = ("Sub", "Add", "Conv", "MatMul", "LayerNormalization", "LeakyRelu")
CUSTOM = ("SelectiveScan", "CausalConv1d")


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in FP32, with the output of every arithmetic node rounded to bfloat16."""
    graph = model.graph
    for i, constant in enumerate(graph.initializer):
        if constant.data_type == TensorProto.BFLOAT16:
            bits = np.frombuffer(constant.raw_data, "<u2").astype(np.uint32) << 16
            values = bits.view(np.float32).reshape(constant.dims)
            graph.initializer[i].CopyFrom(numpy_helper.from_array(values, constant.name))
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "ConstantOfShape":
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32)))
        if node.op_type in (*ARITHMETIC, *CUSTOM):
            name = node.output[0]
            node.output[0] = f"{name}.exact"
            for source, target, kind in (
                (f"{name}.exact", f"{name}.rounded", TensorProto.BFLOAT16),
                (f"{name}.rounded", name, TensorProto.FLOAT),
            ):
                nodes.append(helper.make_node("Cast", [source], [target], to=kind))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.register_custom_ops_library(str(cpu.library_path()))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    output: np.ndarray = session.run(None, {"input": image})[0]
    return output


@pytest.mark.skipif(cpu.library_path() is None, reason="needs the native operators")
def test_the_bundled_network_in_bfloat16() -> None:
    weights = Path(dvmsr.__file__).parent / "weights" / "dvmsr_x4.safetensors"
    image = natural_image((1, 40, 56))
    typed, _ = make_model(weights, "bf16", BF16_OPSET)
    composed.inline(typed)
    onnx.checker.check_model(typed, full_check=True)
    constants = {tensor.name: tensor.data_type for tensor in typed.graph.initializer}
    assert constants["conv_first.weight"] == TensorProto.BFLOAT16
    assert constants["rssb0/vimm0/scan.A"] == TensorProto.FLOAT
    truth = run(make_model(weights, "fp32")[0], image)
    output = run(rounding(typed), image)
    psnr = -10 * np.log10(np.mean((output.astype(np.float64) - truth) ** 2))
    print(f"bfloat16: {psnr:.1f} dB, max abs {np.abs(output - truth).max():.1e}")
    assert default_limits("fp16").broken(np.inf, psnr), "three bits less than half precision"
    assert not default_limits("bf16").broken(np.inf, psnr)
