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


@pytest.mark.parametrize("kind", ["CONVOLUTION", "DECONVOLUTION", "EINSUM", "MATRIX_MULTIPLY"])
def test_products_are_known_by_whole_names(kind: str) -> None:
    """`linear_1` is FP32 on purpose."""
    scan = {"name": "scan", "kind": "PLUGIN_V3", "type": "HALF"}
    one, other = ({"name": name, "kind": kind, "type": "FLOAT"} for name in ("linear", "linear_1"))
    expected = Expected("fp16", 1, ("linear", "mlp/out"))
    check_network([scan, other], expected)
    with pytest.raises(DvmsrError, match=r"^linear would not compute in fp16"):
        check_network([scan, one, other], expected)
    for layer in ("act + linear", "[mlp/out+add]", "linear_myl3_7", "linear+linear_1"):
        assert expected.concerns(layer)
    assert not expected.concerns("mlp/out_2") and not Expected("fp16", 1, ()).concerns("linear")


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
    ("kernel", "factors"),
    [
        ("turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_tn", "fp16"),
        ("volta_fp16_s884gemm_fp16_64x64_ldg8_f2f_nn", "fp16"),
        ("turing_fp16_s1688cudnn_fp16_128x128_ldg8_relu_exp_interior_nhwc_tn_v1", "fp16"),
        ("ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x4_tn", "fp16"),
        ("ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_tn", "bf16"),
        ("ampere_s16816gemm_fp16_64x64_sliced1x2_ldg8_stages_64x6_tn", "fp16"),
        ("ampere_h16816gemm_128x64_ldg8_stages_64x4_tn", "fp16"),
        ("volta_hgemm_64x32_tn", "fp16"),
        ("sm80_xmma_gemm_f16f16_f32f32_f32_tn_n_tilesize64x64x64_stage4", "fp16"),
        ("sm80_xmma_fprop_implicit_gemm_f16f16_f32f32_f32_nhwckrsc_nhwc_tilesize128x64", "fp16"),
        ("sm90_xmma_gemm_bf16bf16_f32f32_f32_tn_n_tilesize128x128x64", "bf16"),
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize32x32x8_stage3", "fp32"),
        ("sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize32x32x8", "fp32"),
        ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc", "fp32"),
        ("sm80_xmma_gemm_f32f32_f16f16_f16_tn_n", "fp32"),
        ("cutlass_80_tensorop_f16_s16816gemm_relu_f16_64x64_32x6_tn_align8", "fp16"),
        ("cutlass_80_tensorop_s16816gemm_bf16_128x128_32x5_nn_align8", "bf16"),
        ("cutlass_tensorop_f16_s16816fprop_optimized_f16_128x128_32x5_nhwc_align8", "fp16"),
        ("cutlass3x_sm90_tensorop_s64x128x16gemm_f16_f16_f32_void_f16_128x128x64", "fp16"),
        ("cutlass3x_sm90_tensorop_s64x128x16gemm_bf16_bf16_f32_void_bf16_128x128x64", "bf16"),
        ("cutlass3x_sm90_tensorop_s64x128x8gemm_f32_f32_f32_void_f32_128x128x32", "fp32"),
        ("cutlass_80_tensorop_s1688gemm_128x128_16x4_nn_align4", "fp32"),
        ("cutlass_80_tensorop_s1688tf32gemm_256x128_16x3_nn_align4", "fp32"),
        ("cutlass_80_simt_sgemm_128x64_8x5_tn_align1", "fp32"),
        ("ampere_sgemm_128x64_tn", "fp32"),
        ("volta_scudnn_128x64_relu_interior_nn_v1", "fp32"),
        ("nvjet_hsh_64x8_64x16_4x1_v_bz_TNT", "fp16"),
        ("nvjet_tst_128x64_64x8_2x1_v_bz_TNT", "bf16"),
        ("nvjet_sss_64x32_32x8_1x2_h_bz_TNT", "fp32"),
        ("nvjet_sm100_hsh_mma_128x64x64_2_64x64x64_tmaAB_bz_TNT", "fp16"),
    ],
)
def test_a_kernels_name_tells_its_factors(kernel: str, factors: str) -> None:
    """Whatever the types of the sum, of the result and of the layer's inputs are."""
    for form in ("Float", "Half", "BFloat16"):
        described = [layer("scan", "PluginV3", "x"), layer("deep", "gemm", form, tactic=kernel)]
        assert check_engine(described, Expected("fp32", 1, None)) == {"other": 1, factors: 1}


@pytest.mark.parametrize("kernel", ["volta_fp16_s884gemm_64x64", "myl_gemm_0x1", "gemm_f8f8_x"])
def test_a_name_that_tells_nothing_leaves_it_to_the_inputs(kernel: str) -> None:
    described = [layer("scan", "PluginV3", "x"), layer("deep", "gemm", "Half", tactic=kernel)]
    assert check_engine(described, Expected("fp32", 1, None)) == {"other": 1, "fp16": 1}


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
