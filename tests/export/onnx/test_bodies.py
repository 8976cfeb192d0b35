"""The operators' ONNX bodies against the FP64 truth of the shared vectors."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx.compose
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from vectors import (
    CHANNEL_MAJOR_CASES,
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

from dvmsr.errors import IncompatibleModelError
from dvmsr.export.onnx import bodies
from dvmsr.export.onnx.export import DEFAULT_OPSET
from dvmsr.export.onnx.forms import write_out_layouts
from dvmsr.export.onnx.graph import IR_VERSION, OPSETS
from dvmsr.export.onnx.inline import without_functions
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES

OUTPUTS = {"SelectiveScan": ("y", "h_last"), "CausalConv1d": ("y", "new_tail")}
ATTRIBUTE = {"SelectiveScan": "delta_softplus", "CausalConv1d": "activation"}
STATE_IS_FLOAT = {"SelectiveScan": True, "CausalConv1d": False}
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


Inputs = dict[str, np.ndarray]


def model_of(
    op: str,
    inputs: Inputs,
    opset: int = DEFAULT_OPSET,
    applied: bool = True,
    channel_major: bool | None = None,
) -> onnx.ModelProto:
    """One node, its inputs of the same rank as those given and of any size but for K. It says
    channel_major unless that is None."""
    outputs = OUTPUTS[op]
    layout = {} if channel_major is None else {"channel_major": int(channel_major)}
    node = helper.make_node(
        op, list(inputs), list(outputs), "the_node", domain="dvmsr",
        **{ATTRIBUTE[op]: int(applied)}, **layout, **ATTRIBUTES,
    )  # fmt: skip
    dtype = str(next(iter(inputs.values())).dtype)
    types = [TYPES[dtype], TYPES["float32" if STATE_IS_FLOAT[op] else dtype]]
    told = {"weight": 1}
    graph = helper.make_graph(
        [node],
        op,
        [
            helper.make_tensor_value_info(
                name,
                TYPES[str(value.dtype)],
                [size if told.get(name) == axis else None for axis, size in enumerate(value.shape)],
            )
            for name, value in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, kind, [None] * 3)
            for name, kind in zip(outputs, types, strict=True)
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("dvmsr", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
    bodies.attach(model)
    return model


def run(
    op: str,
    inputs: Inputs,
    opset: int = DEFAULT_OPSET,
    applied: bool = True,
    channel_major: bool | None = None,
) -> list[np.ndarray]:
    """Through onnxruntime without the native operators."""
    model = model_of(op, inputs, opset, applied, channel_major)
    onnx.checker.check_model(model, full_check=True)
    return session_of(model).run(None, inputs)


def session_of(model: onnx.ModelProto, native: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if native:
        options.register_custom_ops_library(str(cpu.library_path()))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def assert_close(
    outputs: list[np.ndarray], truths: tuple[np.ndarray, np.ndarray], dtypes: tuple[str, str]
) -> None:
    for output, truth, dtype in zip(outputs, truths, dtypes, strict=True):
        assert output.dtype == dtype
        assert output.shape == truth.shape
        assert error(output, truth) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", [*SCAN_CASES, *CHANNEL_MAJOR_CASES], ids=str)
def test_scan(case: ScanCase, dtype: str) -> None:
    inputs = cast(scan_inputs(case), dtype)
    form = case.softplus, case.channel_major
    outputs = run("SelectiveScan", inputs, DEFAULT_OPSET, *form)
    assert_close(outputs, scan_truth(inputs, *form), (dtype, "float32"))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_conv(case: ConvCase, dtype: str) -> None:
    inputs = cast(conv_inputs(case), dtype)
    outputs = run("CausalConv1d", inputs, applied=case.activation)
    assert_close(outputs, conv_truth(inputs, case.activation), (dtype, dtype))


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
    outputs = ReferenceEvaluator(model_of("SelectiveScan", scan)).run(None, scan)
    assert_close(outputs, scan_truth(scan), ("float32", "float32"))
    conv = cast(conv_inputs(ConvCase(2, 9, 3, 4)), "float32")
    outputs = ReferenceEvaluator(model_of("CausalConv1d", conv)).run(None, conv)
    assert_close(outputs, conv_truth(conv), ("float32", "float32"))


FORMS = [
    ScanCase(1, 20, 8, 16),
    ScanCase(1, 20, 8, 16, gate=False),
    ScanCase(1, 20, 8, 3, groups=4, gate=False),
    ScanCase(1, 20, 8, 3, softplus=False),
    ScanCase(1, 20, 8, 3, groups=2, channel_major=True),
    ScanCase(2, 20, 8, 3, groups=2, gate=False, channel_major=True),
]


def model_of_all_forms() -> tuple[onnx.ModelProto, Inputs, list[np.ndarray]]:
    """Scans and convolutions of several forms side by side, their inputs and true outputs."""
    parts: list[tuple[onnx.ModelProto, Inputs, tuple[np.ndarray, np.ndarray]]] = []
    for case in FORMS:
        inputs = cast(scan_inputs(case), "float32")
        form = case.softplus, case.channel_major
        model = model_of("SelectiveScan", inputs, DEFAULT_OPSET, *form)
        parts.append((model, inputs, scan_truth(inputs, *form)))
    for conv in (ConvCase(1, 9, 5, 4), ConvCase(1, 9, 5, 3, activation=False)):
        inputs = cast(conv_inputs(conv), "float32")
        model = model_of("CausalConv1d", inputs, applied=conv.activation)
        parts.append((model, inputs, conv_truth(inputs, conv.activation)))
    whole, given, truths = onnx.ModelProto(), {}, []
    whole.CopyFrom(parts[0][0])
    whole.graph.Clear()
    whole.graph.name = "all_forms"
    for i, (model, inputs, truth) in enumerate(parts):
        bodies.detach(model)
        graph = onnx.compose.add_prefix_graph(model.graph, f"{i}_")
        whole.graph.MergeFrom(graph)
        given |= {f"{i}_{name}": value for name, value in inputs.items()}
        truths += truth
    whole.graph.name = "all_forms"
    bodies.attach(whole)
    return whole, given, truths


@pytest.mark.parametrize("native", [False, True], ids=["bodies", "native"])
def test_forms_side_by_side(native: bool) -> None:
    """One body each, since ONNX Runtime 1.20 and TensorRT's parser ignore overloads."""
    model, inputs, truths = model_of_all_forms()
    onnx.checker.check_model(model, full_check=True)
    assert [(body.name, body.overload) for body in model.functions] == [
        ("SelectiveScan", ""),
        ("CausalConv1d", ""),
    ]
    for output, truth in zip(session_of(model, native).run(None, inputs), truths, strict=True):
        assert error(output, truth) <= TOLERANCE["float32"]


def test_forms_side_by_side_written_out() -> None:
    model, inputs, truths = model_of_all_forms()
    model = without_functions(model)
    assert {node.domain for node in model.graph.node} == {""}
    for output, truth in zip(session_of(model).run(None, inputs), truths, strict=True):
        assert error(output, truth) <= TOLERANCE["float32"]


@pytest.mark.parametrize("case", FORMS, ids=str)
def test_a_form_of_its_own_keeps_its_node(case: ScanCase) -> None:
    inputs = cast(scan_inputs(case), "float32")
    model = model_of("SelectiveScan", inputs, DEFAULT_OPSET, case.softplus, case.channel_major)
    (node,) = model.graph.node
    assert list(node.input) == list(inputs)
    values = {entry.name: entry.i for entry in node.attribute}
    assert values["delta_softplus"] == case.softplus
    assert values.get("channel_major", 0) == case.channel_major
    assert model.ir_version == IR_VERSION


@pytest.mark.parametrize("native", [False, True], ids=["bodies", "native"])
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_layouts_written_out(case: ScanCase, native: bool) -> None:
    """For what reads token-major tensors alone."""
    inputs = cast(scan_inputs(case), "float32")
    form = case.softplus, case.channel_major
    model = model_of("SelectiveScan", inputs, DEFAULT_OPSET, *form)
    before = copy.deepcopy(model.graph)
    write_out_layouts(model.graph)
    assert (before == model.graph) == (not case.channel_major)
    (scan,) = (node for node in model.graph.node if node.domain == "dvmsr")
    assert "channel_major" not in [entry.name for entry in scan.attribute if entry.i]
    assert len(model.graph.node) == 1 + (len(inputs) - 3 if case.channel_major else 0)
    bodies.attach(model)
    onnx.checker.check_model(model, full_check=True)
    assert_close(
        session_of(model, native).run(None, inputs), scan_truth(inputs, *form), ("float32",) * 2
    )


def test_bodies_are_replaced_not_doubled() -> None:
    model, _, _ = model_of_all_forms()
    before = model.SerializeToString(deterministic=True)
    bodies.attach(model)
    assert model.SerializeToString(deterministic=True) == before
    bodies.detach(model)
    assert not model.functions


def test_an_unknown_number_of_taps_names_the_node() -> None:
    model = model_of("CausalConv1d", cast(conv_inputs(ConvCase(1, 5, 4, 3)), "float32"))
    model.graph.input[1].type.tensor_type.ClearField("shape")
    with pytest.raises(IncompatibleModelError, match=r"the_node: .* number of taps of its weight"):
        bodies.attach(model)


def test_bodies_use_standard_operators_only() -> None:
    model, _, _ = model_of_all_forms()
    for body in model.functions:
        assert {node.domain for node in body.node} == {""}
        assert set(body.attribute) == {*ATTRIBUTES, ATTRIBUTE[body.name]}


def test_a_channel_major_body_takes_the_attribute() -> None:
    case = ScanCase(1, 5, 4, 3, channel_major=True)
    inputs = cast(scan_inputs(case), "float32")
    (body,) = model_of("SelectiveScan", inputs, channel_major=True).functions
    assert {node.domain for node in body.node} == {""}
    assert set(body.attribute) == {*ATTRIBUTES, "delta_softplus", "channel_major"}
