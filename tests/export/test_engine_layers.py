"""Judging what the layers of a network or engine compute in."""

from __future__ import annotations

from typing import Any

import pytest

from dvmsr.errors import DvmsrError
from dvmsr.export.engine_layers import Expected, check_engine, check_network, count_types

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
        layer("deep", "CaskGemmConvolution", "Half", "Float"),
        layer("deep", "Myelin", "Float", tactic="sm80_xmma_gemm_f32f32"),
        layer("a + deep", "MatrixMultiply", "FP32"),
    ],
    ids=lambda each: each["LayerType"],
)
def test_an_engine_in_full_precision_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DvmsrError, match="deep would not compute in fp16"):
        check_engine([*ENGINE, wrong], HALF)
    named = Expected("fp16", 1, ("deep",))
    with pytest.raises(DvmsrError, match="deep would not compute in fp16"):
        check_engine([*ENGINE, wrong], named)
    check_engine([*ENGINE, wrong], Expected("fp16", 1, ("other",)))
    check_engine([*ENGINE, wrong], Expected("fp32", 1, None))


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
