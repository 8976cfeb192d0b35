"""The exported graph against the PyTorch network, and its shape as the README promises it."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from networks import SMALL, random_network
from vectors import TOLERANCE, error

from dvmsr.config import DVMSRConfig
from dvmsr.data.natural_image import natural_image
from dvmsr.export.onnx import bodies
from dvmsr.export.onnx.graph import build_model
from dvmsr.model import DVMSR
from dvmsr.runtime.backends.onnxrt import composed
from dvmsr.runtime.backends.onnxrt.library import onnxruntime

CONFIGS = {
    "x2": SMALL,
    "x3": replace(SMALL, scale=3),
    "x4": replace(SMALL, scale=4),
    "pixelshuffle-x2": replace(SMALL, upsampler="pixelshuffle"),
    "pixelshuffle-x3": replace(SMALL, upsampler="pixelshuffle", scale=3),
    "pixelshuffle-x4": replace(SMALL, upsampler="pixelshuffle", scale=4),
    "depths-1-2": replace(SMALL, depths=(1, 2)),
    "residual": replace(SMALL, vimm_residual=True),
    "bidirectional": replace(SMALL, bidirectional=True),
    "odd-sizes": DVMSRConfig(channels=17, depths=(1,), state=3, expand=3, conv_width=2, scale=2),
    "one-tap": replace(SMALL, conv_width=1),
}
EVERYTHING = replace(
    SMALL, depths=(2, 1), upsampler="pixelshuffle", vimm_residual=True, bidirectional=True
)

FP16_NETWORK = 1e-2
"""Largest error of a whole half-precision network relative to its output's range; random weights
amplify rounding more than trained ones."""


def exported(network: DVMSR, **options: object) -> onnx.ModelProto:
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    weights = {key: tensor.detach().numpy() for key, tensor in tensors.items()}
    model = build_model(network.config, weights, **options)  # type: ignore[arg-type]
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return model


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """Through onnxruntime and the portable bodies."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (output,) = session.run(None, {"input": image})
    return output


def truth(network: DVMSR, image: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(image)).numpy()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_fp32_equals_pytorch(config: DVMSRConfig) -> None:
    network = random_network(config)
    image = natural_image((1, 9, 11))
    output = run(exported(network), image)
    assert output.dtype == np.float32
    assert error(output, truth(network, image)) <= TOLERANCE["float32"]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_fp16_is_close_to_fp32_pytorch(config: DVMSRConfig) -> None:
    network = random_network(config)
    image = natural_image((1, 9, 11))
    output = run(exported(network, precision="fp16"), image.astype(np.float16))
    assert output.dtype == np.float16
    assert error(output, truth(network, image)) <= FP16_NETWORK


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 17), (3, 16, 1), (2, 5, 7)])
def test_one_dynamic_model_takes_every_size(shape: tuple[int, int, int]) -> None:
    network = random_network(EVERYTHING)
    image = natural_image(shape)
    output = run(exported(network), image)
    assert error(output, truth(network, image)) <= TOLERANCE["float32"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_static_model(precision: str) -> None:
    network = random_network(EVERYTHING)
    model = exported(network, precision=precision, static_shape=(2, 6, 5))
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [2, 3, 12, 10]
    assert not {"Shape", "ConstantOfShape"} & {node.op_type for node in model.graph.node}
    image = natural_image((2, 6, 5))
    output = run(model, image.astype(np.float16 if precision == "fp16" else np.float32))
    tolerance = FP16_NETWORK if precision == "fp16" else TOLERANCE["float32"]
    assert error(output, truth(network, image)) <= tolerance
    with pytest.raises(Exception, match="invalid dimensions"):
        run(model, natural_image((1, 6, 5)).astype(output.dtype))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_one_node_per_scan(bidirectional: bool) -> None:
    network = random_network(replace(SMALL, depths=(2, 1), bidirectional=bidirectional))
    model = exported(network)
    count = Counter(node.op_type for node in model.graph.node)
    scans = 3 * (1 + bidirectional)
    assert count["MambaMixer"] == scans
    assert count["MatMul"] == count["Split"] == 0
    assert count["LayerNormalization"] == 2
    assert count["Conv3x3"] == 2 + 1 + 2
    assert count["Transpose"] == 1 + 1 + 1
    composed.inline(model)
    count = Counter(node.op_type for node in model.graph.node)
    assert count["SelectiveScan"] == count["CausalConv1d"] == scans
    assert count["LayerNormalization"] == 2 + scans
    assert count["MatMul"] == 7 * scans
    assert count["Conv"] == 2 + 1 + 2
    assert count["Transpose"] == 2 * count["Conv"] + 1 + 1 + 1


def test_operator_nodes_carry_what_tensorrt_wants() -> None:
    model = exported(random_network())
    wanted: dict[str, tuple[int, int, dict[str, object]]] = {
        "MambaMixer": (17, 3, {"epsilon": np.float32(1e-5)}),
        "Conv3x3": (3, 1, {"pads": [1, 1, 1, 1]}),
        "CausalConv1d": (4, 2, {"activation": 1}),
        "SelectiveScan": (9, 2, {"delta_softplus": 1}),
    }
    for operators in ({"MambaMixer", "Conv3x3"}, {"CausalConv1d", "SelectiveScan"}):
        custom = [node for node in model.graph.node if node.domain == "dvmsr"]
        assert {node.op_type for node in custom} == operators
        for node in custom:
            assert all(node.input) and all(node.output)
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert attributes.pop("plugin_version") == b"1"
            assert attributes.pop("plugin_namespace") == b"dvmsr"
            found = len(node.input), len(node.output), attributes
            assert found == wanted[node.op_type]
        composed.inline(model)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {
        ("", 18),
        ("dvmsr", 1),
    }


def test_names_say_where_a_node_is() -> None:
    model = exported(random_network(EVERYTHING))
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {"rssb0/vimm1", "rssb1/vimm0/backward", "rssb1/conv", "conv_last"} <= set(names)
    composed.inline(model)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {"rssb0/vimm1/scan", "rssb1/vimm0/backward/scan", "rssb1/conv"} <= set(names)


@pytest.mark.parametrize("static_shape", [None, (2, 6, 5)])
def test_parts_in_place_of_mixers(static_shape: tuple[int, int, int] | None) -> None:
    """What TensorRT gets: the same weights, shapes told, and the same result to the bit."""
    model = exported(random_network(EVERYTHING), static_shape=static_shape)
    parts = copy.deepcopy(model)
    composed.inline(parts)
    assert parts.graph.initializer == model.graph.initializer
    assert [body.name for body in parts.functions] == ["SelectiveScan", "CausalConv1d"]
    onnx.checker.check_model(parts, full_check=True)
    bare = copy.deepcopy(parts)
    bodies.detach(bare)
    told = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True).graph
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in told.value_info}
    states = {name for node in told.node if node.domain for name in node.output[1:]}
    computed = {name for node in told.node for name in node.output} - states
    assert computed - set(ranks) == {"output"}
    image = natural_image((2, 6, 5))
    np.testing.assert_array_equal(run(parts, image), run(model, image))


def test_types_of_a_half_precision_file() -> None:
    model = exported(random_network(EVERYTHING), precision="fp16")
    kinds = {
        tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type)
        for tensor in model.graph.initializer
    }
    wide = ("scan.A", "scan.D", "scan.delta_bias", "conv1d.weight", "conv1d.bias")
    for name, kind in kinds.items():
        if kind != "INT64":
            assert kind == ("FLOAT" if name.endswith(wide) else "FLOAT16"), name
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    for node in norms:
        assert {a.name: a.i for a in node.attribute if a.name == "stash_type"} == {"stash_type": 1}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
