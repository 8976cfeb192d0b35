"""Judging what the layers of a network or engine compute in."""

from __future__ import annotations

from typing import Any

import pytest

from dvmsr.errors import DvmsrError
from dvmsr.export.trt.layers import Expected, check_engine, check_network, count_types, unjudged

HALF = Expected("fp16", 1, None)
NETWORK = [
    {"name": "w", "kind": "CONSTANT", "type": "HALF"},
    {"name": "conv_first", "kind": "CONVOLUTION", "type": "HALF"},
    {"name": "in_proj", "kind": "MATRIX_MULTIPLY", "type": "HALF"},
    {"name": "scan", "kind": "PLUGIN_V3", "type": "HALF"},
    {"name": "size", "kind": "SHAPE", "type": "INT64"},
    {"name": "h0", "kind": "SLICE", "type": "FLOAT"},
]


def layer(name: str, kind: str, type_in: str, type_out: str = "", tactic: str = "") -> Any:
    """As TensorRT's inspector describes a layer, in part."""
    tensor = {"Name": "x", "Dimensions": [1, 60, 8, 8]}
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{**tensor, "Format/Datatype": type_in}],
        "Outputs": [{**tensor, "Format/Datatype": type_out or type_in}],
        "TacticName": tactic,
    }


ENGINE = [
    layer("conv_first", "CaskConvolution", "Channel major FP16 format where channel % 8 == 0"),
    layer("in_proj", "gemm", "Half", tactic="sm80_xmma_gemm_f16f16_f16f32"),
    layer("scan", "PluginV3", "Half"),
    layer("h0", "kgen", "Float"),
    layer("sizes", "kgen", "Int64"),
]


def test_what_was_asked_for_passes() -> None:
    check_network(NETWORK, HALF)
    assert check_engine(ENGINE, HALF) == {"fp16": 3, "fp32": 1, "other": 1}
    assert count_types(NETWORK) == {"fp16": 3, "fp32": 1}


@pytest.mark.parametrize("kind", ["CONVOLUTION", "MATRIX_MULTIPLY"])
def test_a_product_of_another_type_is_refused(kind: str) -> None:
    wrong = {"name": "deep", "kind": kind, "type": "FLOAT"}
    with pytest.raises(DvmsrError, match="deep would not compute in fp16"):
        check_network([*NETWORK, wrong], HALF)
    with pytest.raises(DvmsrError, match="conv_first, in_proj would not compute in fp32"):
        check_network(NETWORK, Expected("fp32", 1, None))
    with pytest.raises(DvmsrError, match="would not compute in bf16"):
        check_network(NETWORK, Expected("bf16", 1, None))


@pytest.mark.parametrize(
    "wrong",
    [
        layer("deep", "CaskConvolution", "Row major linear FP32"),
        layer("deep", "CaskGemmConvolution", "FP32", "Half"),
        layer("deep", "Myelin", "Float", tactic="sm80_xmma_gemm_f32f32"),
        layer("deep", "gemm", "Half", tactic="sm80_xmma_gemm_f32f32_f32f32_f32_tn_n"),
        layer("deep", "gemm", "Half", tactic="sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n"),
        layer("deep", "gemm", "Half", tactic="ampere_sgemm_128x64_tn"),
        {**layer("deep", "CaskConvolution", "Half"), "Weights": {"Type": "Float", "Count": 9}},
        layer("a + deep", "MatrixMultiply", "FP32"),
    ],
    ids=lambda each: each["TacticName"] or each["LayerType"],
)
def test_an_engine_in_full_precision_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DvmsrError, match="deep would not compute in fp16"):
        check_engine([*ENGINE, wrong], HALF)
    named = Expected("fp16", 1, ("deep",))
    with pytest.raises(DvmsrError, match="deep would not compute in fp16"):
        check_engine([*ENGINE, wrong], named)
    check_engine([*ENGINE, wrong], Expected("fp16", 1, ("other",)))
    check_engine([*ENGINE, wrong], Expected("fp32", 1, None))


@pytest.mark.parametrize(
    ("precision", "right"),
    [
        ("fp16", layer("deep", "CaskGemmConvolution", "Half", "Float")),
        ("fp16", layer("deep", "gemm", "Float", tactic="sm80_xmma_gemm_f16f16_f16f32_f32_tn_n")),
        ("fp16", layer("deep", "gemm", "Float", tactic="ampere_h16816gemm_128x64_tn")),
        ("bf16", layer("deep", "gemm", "Float", tactic="sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn")),
        ("bf16", layer("deep", "gemm", "BFloat16", "Float")),
        ("fp16", {**layer("deep", "CaskConvolution", "Float"), "Weights": {"Type": "Half"}}),
    ],
    ids=lambda each: each if isinstance(each, str) else each["TacticName"] or each["LayerType"],
)
def test_a_product_is_judged_by_what_it_multiplies(precision: str, right: Any) -> None:
    """Not by what is cast or added behind it in the same kernel."""
    plugin = layer("scan", "PluginV3", "Half")
    expected = Expected(precision, 1, None)
    assert check_engine([plugin, right], expected)[precision] >= 1
    assert unjudged([plugin, right], expected) == []


@pytest.mark.parametrize(
    "hidden",
    [
        layer("{ForeignNode[/in_proj/MatMul...]}", "Myelin", "Float"),
        {**layer("deep", "kgen", "Float"), "Metadata": "[ONNX Layer: /in_proj/MatMul]"},
        layer("/in_proj/MatMul", "gemm", "N/A due to dynamic shapes"),
    ],
    ids=lambda each: each["LayerType"],
)
def test_a_product_that_does_not_show_is_told(hidden: Any) -> None:
    assert unjudged([*ENGINE, hidden], HALF) == [hidden["Name"]]
    assert unjudged([*ENGINE, hidden], Expected("fp16", 1, ("/in_proj/MatMul",)))
    assert unjudged([*ENGINE, hidden], Expected("fp16", 1, ("other",))) == []
    assert unjudged([*ENGINE, hidden], Expected("fp32", 1, None)) == []
    assert unjudged(ENGINE, HALF) == []


def test_bfloat16_is_a_word_of_its_own() -> None:
    assert check_engine([layer("x", "PluginV3", "BF16x")], Expected("fp32", 1, None)) == {
        "other": 1
    }


def test_missing_plugin_layers_are_refused() -> None:
    for count in (0, 2):
        with pytest.raises(DvmsrError, match=rf"1 plugin layers where the model has {count}"):
            check_network(NETWORK, Expected("fp16", count, None))
        with pytest.raises(DvmsrError, match=r"the engine has 1 plugin layers"):
            check_engine(ENGINE, Expected("fp16", count, None))


def test_an_engine_that_shows_no_half_precision_is_refused() -> None:
    with pytest.raises(DvmsrError, match="no layer of the engine computes in fp16"):
        check_engine([layer("scan", "PluginV3", "N/A due to dynamic shapes")], HALF)
    with pytest.raises(DvmsrError, match="0 plugin layers"):
        check_engine(["conv_first", "scan"], HALF)
