"""The operators' ONNX bodies against the FP64 truth of the shared vectors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from vectors import (
    CONV_CASES,
    SCAN_CASES,
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
from dvmsr.export.onnx.export import DEFAULT_OPSET
from dvmsr.export.onnx.graph import IR_VERSION, OPSETS
from dvmsr.runtime.backends.onnxrt.library import onnxruntime

OUTPUTS = {"SelectiveScan": ("y", "h_last"), "CausalConv1d": ("y", "new_tail")}
STATE_IS_FLOAT = {"SelectiveScan": True, "CausalConv1d": False}
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def model_of(
    op: str, inputs: dict[str, np.ndarray], dtype: str, opset: int = DEFAULT_OPSET
) -> onnx.ModelProto:
    """One node, its inputs of the same rank as those given and of any size."""
    outputs = OUTPUTS[op]
    node = helper.make_node(op, list(inputs), list(outputs), domain="dvmsr", **bodies.ATTRIBUTES)
    types = [TYPES[dtype], TYPES["float32" if STATE_IS_FLOAT[op] else dtype]]
    graph = helper.make_graph(
        [node],
        op,
        [
            helper.make_tensor_value_info(name, TYPES[str(value.dtype)], [None] * value.ndim)
            for name, value in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, kind, [None] * 3)
            for name, kind in zip(outputs, types, strict=True)
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("dvmsr", 1)]
    width = inputs["weight"].shape[1] if op == "CausalConv1d" else 4
    functions = bodies.functions(opset, width)
    return helper.make_model(
        graph, functions=functions, opset_imports=imports, ir_version=IR_VERSION
    )


def run(op: str, inputs: dict[str, np.ndarray], opset: int = DEFAULT_OPSET) -> list[np.ndarray]:
    """Through onnxruntime without the native operators."""
    dtype = str(next(iter(inputs.values())).dtype)
    model = model_of(op, inputs, dtype, opset)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def assert_close(
    outputs: list[np.ndarray], truths: tuple[np.ndarray, np.ndarray], dtypes: tuple[str, str]
) -> None:
    for output, truth, dtype in zip(outputs, truths, dtypes, strict=True):
        assert output.dtype == dtype
        assert output.shape == truth.shape
        assert error(output, truth) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
def test_scan(case: ScanCase, dtype: str) -> None:
    inputs = cast(scan_inputs(case), dtype)
    assert_close(run("SelectiveScan", inputs), scan_truth(inputs), (dtype, "float32"))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_conv(case: ConvCase, dtype: str) -> None:
    inputs = cast(conv_inputs(case), dtype)
    assert_close(run("CausalConv1d", inputs), conv_truth(inputs), (dtype, dtype))


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset(opset: int) -> None:
    scan = cast(scan_inputs(ScanCase(2, 17, 5, 3)), "float16")
    conv = cast(conv_inputs(ConvCase(2, 5, 3, 4)), "float16")
    try:
        assert_close(run("SelectiveScan", scan, opset), scan_truth(scan), ("float16", "float32"))
        assert_close(run("CausalConv1d", conv, opset), conv_truth(conv), ("float16", "float16"))
    except Exception as failure:
        if "guarantees" not in str(failure):
            raise
        pytest.skip(f"onnxruntime {onnxruntime.__version__} does not read opset {opset}")


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 32])
def test_a_scan_may_be_split_anywhere(cut: int) -> None:
    whole = cast(scan_inputs(ScanCase(2, 33, 6, 5)), "float32")
    by_token = {"u", "delta", "B", "C", "z"}
    first = {k: v[:, :cut] if k in by_token else v for k, v in whole.items()}
    second = {k: v[:, cut:] if k in by_token else v for k, v in whole.items()}
    y_first, second["h0"] = run("SelectiveScan", first)
    y_second, h_last = run("SelectiveScan", second)
    y = np.concatenate([y_first, y_second], 1)
    assert_close([y, h_last], scan_truth(whole), ("float32", "float32"))


def test_not_a_number_stays_in_its_channel_and_in_the_state() -> None:
    inputs = cast(scan_inputs(ScanCase(1, 20, 4, 3)), "float32")
    inputs["u"][0, 5, 2] = np.nan
    y, h_last = run("SelectiveScan", inputs)
    assert np.isnan(y[0, 5:, 2]).all()
    assert np.isnan(h_last[0, 2]).all()
    assert np.isfinite(y[0, :5]).all()
    assert np.isfinite(np.delete(y, 2, axis=2)).all()


def test_in_the_reference_evaluator_of_onnx() -> None:
    scan = cast(scan_inputs(ScanCase(2, 19, 3, 4)), "float32")
    outputs = ReferenceEvaluator(model_of("SelectiveScan", scan, "float32")).run(None, scan)
    assert_close(outputs, scan_truth(scan), ("float32", "float32"))
    conv = cast(conv_inputs(ConvCase(2, 9, 3, 4)), "float32")
    outputs = ReferenceEvaluator(model_of("CausalConv1d", conv, "float32")).run(None, conv)
    assert_close(outputs, conv_truth(conv), ("float32", "float32"))


def test_bodies_use_standard_operators_only() -> None:
    for function in bodies.functions(DEFAULT_OPSET, 4):
        assert {node.domain for node in function.node} == {""}
        assert set(function.attribute) == set(bodies.ATTRIBUTES)
