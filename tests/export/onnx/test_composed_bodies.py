"""The composed operators' ONNX bodies against FP64 truth: as functions that call functions, in
place of the nodes, and with the native operators."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx.compose
import pytest
from mixer_model import mixer_model
from mixer_vectors import (
    MIXER_CASES,
    MIXER_TOLERANCE,
    MixerCase,
    mixer_inputs,
    mixer_truth,
)
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from strip_vectors import (
    STRIP_CASES,
    StripCase,
    strip_add_inputs,
    strip_add_truth,
    strip_conv_inputs,
    strip_conv_is_true,
    strip_model,
)
from vectors import TOLERANCE, ScanCase, cast, error, scan_inputs, scan_truth

from dvmsr.errors import IncompatibleModelError
from dvmsr.export.onnx import bodies
from dvmsr.export.onnx.graph import OPSETS
from dvmsr.export.onnx.inline import without_functions
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt import composed
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES

Inputs = dict[str, np.ndarray]
LIBRARIES = [
    pytest.param(None, id="bodies"),
    pytest.param(
        cpu.library_path(),
        id="native",
        marks=pytest.mark.skipif(cpu.library_path() is None, reason="no native operators"),
    ),
]


def run(model: onnx.ModelProto, inputs: Inputs, library: object = None) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    if library:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[np.ndarray] = session.run(None, inputs)
    return outputs


def assert_true(outputs: list[np.ndarray], inputs: Inputs) -> None:
    dtype = str(inputs["x"].dtype)
    for output, truth, kind in zip(
        outputs, mixer_truth(inputs), (dtype, dtype, "float32"), strict=True
    ):
        assert (output.dtype, output.shape) == (kind, truth.shape)
        assert error(output, truth) <= MIXER_TOLERANCE[dtype]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", MIXER_CASES, ids=str)
def test_mixer(case: MixerCase, dtype: str, library: object) -> None:
    inputs = mixer_inputs(case, dtype)
    model = mixer_model(inputs)
    bodies.attach(model)
    names = ["SelectiveScan", "CausalConv1d", "MambaMixer"]
    assert [body.name for body in model.functions] == names
    assert_true(run(model, inputs, library), inputs)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", MIXER_CASES, ids=str)
def test_parts_in_its_place(case: MixerCase, dtype: str) -> None:
    inputs = mixer_inputs(case, dtype)
    model = mixer_model(inputs)
    composed.inline(model)
    operators = [node.op_type for node in model.graph.node if node.domain]
    assert operators == ["CausalConv1d", "SelectiveScan"]
    assert all(node.name.startswith("y/") for node in model.graph.node)
    bodies.attach(model)
    assert_true(run(model, inputs), inputs)


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[6]])
def test_opsets(opset: int) -> None:
    for case in (MixerCase(2, 7, 5, 3), MixerCase(1, 9, 4, 2, norm=False, in_proj=False)):
        inputs = mixer_inputs(case, "float32")
        model = mixer_model(inputs, opset)
        bodies.attach(model)
        assert_true(run(model, inputs), inputs)


def test_in_the_reference_evaluator_of_onnx() -> None:
    inputs = mixer_inputs(MixerCase(2, 19, 5, 3), "float32")
    model = mixer_model(inputs)
    bodies.attach(model)
    assert_true(ReferenceEvaluator(model).run(None, inputs), inputs)


def test_epsilon_may_be_left_to_its_default() -> None:
    inputs = mixer_inputs(MixerCase(1, 9, 5, 3), "float32")
    inputs["x"] *= 1e-3
    model = mixer_model(inputs)
    (entry,) = [a for a in model.graph.node[0].attribute if a.name == "epsilon"]
    model.graph.node[0].attribute.remove(entry)
    bodies.attach(model)
    y, _, _ = run(model, inputs)
    assert error(y, mixer_truth(inputs, 1e-5)[0]) <= MIXER_TOLERANCE["float32"]
    assert error(y, mixer_truth(inputs)[0]) > 0.1


def test_trailing_inputs_may_be_left_off() -> None:
    inputs = mixer_inputs(MixerCase(1, 9, 5, 3, norm=False), "float32")
    model = mixer_model(inputs)
    del model.graph.node[0].input[15:]
    bodies.attach(model)
    assert_true(run(model, inputs), inputs)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("made", ["function", "parts"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 1, 0, 1), (1, 0, 0, 0)])
def test_conv3x3(pads: tuple[int, ...], dtype: str, made: str, library: object) -> None:
    rng = np.random.default_rng(0)
    B, H, W, C, E = 2, 6, 5, 4, 3
    wide = {
        "x": rng.standard_normal((B, H, W, C)),
        "weight": rng.standard_normal((E, C, 3, 3)),
        "bias": rng.standard_normal(E),
    }
    inputs = {name: value.astype(dtype) for name, value in wide.items()}
    wide = {name: value.astype(np.float64) for name, value in inputs.items()}
    top, left, bottom, right = pads
    seen = np.pad(wide["x"], ((0, 0), (top, bottom), (left, right), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(seen, (3, 3), (1, 2))
    truth = np.einsum("bhwcij,ecij->bhwe", windows, wide["weight"]) + wide["bias"]

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node(
        *("Conv3x3", list(inputs), ["y"], "node"), domain="dvmsr", pads=pads, **ATTRIBUTES
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info(name, kind, [None] * v.ndim) for name, v in inputs.items()],
        [helper.make_tensor_value_info("y", kind, [None] * 4)],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("dvmsr", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    if made == "parts":
        composed.inline(model)
        assert [part.op_type for part in model.graph.node] == ["Transpose", "Conv", "Transpose"]
        assert model.graph.node[1].name == "y"
    else:
        bodies.attach(model)
        assert [body.name for body in model.functions] == ["Conv3x3"]
    (y,) = run(model, inputs, library)
    assert (y.dtype, y.shape) == (dtype, truth.shape)
    assert error(y, truth) <= TOLERANCE[dtype]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("made", ["function", "parts"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", [case for case in STRIP_CASES if case.batch], ids=str)
def test_strips(case: StripCase, dtype: str, made: str, library: object) -> None:
    convolution, addition = strip_conv_inputs(case, dtype), strip_add_inputs(case, dtype)
    outputs = []
    for op, inputs in (("StripConv3x3", convolution), ("StripAdd", addition)):
        model = strip_model(op, inputs, **ATTRIBUTES)
        if made == "parts":
            composed.inline(model)
            assert not any(part.domain for part in model.graph.node)
            assert model.graph.node[-1].output == ["next"]
        else:
            bodies.attach(model)
            assert [body.name for body in model.functions] == [op]
        outputs.append(run(model, inputs, library))
    assert strip_conv_is_true(outputs[0], convolution)
    for output, truth in zip(outputs[1], strip_add_truth(addition), strict=True):
        np.testing.assert_array_equal(output, truth, strict=True)


FORMS = [
    MixerCase(1, 9, 6, 3),
    MixerCase(1, 9, 6, 3, width=2, norm=False),
    MixerCase(2, 8, 4, 16, out_proj=False),
    MixerCase(2, 7, 4, 2, in_proj=False),
    MixerCase(1, 7, 4, 2, norm=False, in_proj=False, out_proj=False),
]


def of_all_forms() -> tuple[onnx.ModelProto, Inputs, list[np.ndarray]]:
    """Mixers of several forms beside a scan without gate and softplus, their inputs and true
    outputs."""
    model, given, truths = onnx.ModelProto(), {}, []
    for i, case in enumerate(FORMS):
        inputs = mixer_inputs(case, "float32")
        part = mixer_model(inputs, prefix=f"{i}_")
        model.MergeFrom(part)
        given |= {f"{i}_{name}": value for name, value in inputs.items()}
        truths += mixer_truth(inputs)
    del model.opset_import[2:]
    scan = cast(
        scan_inputs(case := ScanCase(1, 20, 8, 3, 2, gate=False, softplus=False)), "float32"
    )
    node = helper.make_node(
        *("SelectiveScan", list(scan), ["y", "h_last"], "scan"),
        domain="dvmsr",
        delta_softplus=0,
        **ATTRIBUTES,
    )
    model.graph.node.append(node)
    floats = [TensorProto.FLOAT]
    model.graph.input.extend(
        helper.make_tensor_value_info(name, *floats, value.shape) for name, value in scan.items()
    )
    model.graph.output.extend(
        helper.make_tensor_value_info(name, *floats, [None] * 3) for name in node.output
    )
    return model, given | scan, [*truths, *scan_truth(scan, case.softplus)]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("made", ["functions", "parts", "written out"])
def test_forms_side_by_side(made: str, library: object) -> None:
    """One body of each name, whatever the forms."""
    model, inputs, truths = of_all_forms()
    if made == "parts":
        composed.inline(model)
    bodies.attach(model)
    if made == "written out":
        model = without_functions(model)
        assert {node.domain for node in model.graph.node} == {""}
    for output, truth in zip(run(model, inputs, library), truths, strict=True):
        assert error(output, truth) <= MIXER_TOLERANCE["float32"]


def test_bodies_are_replaced_not_doubled() -> None:
    model, _, _ = of_all_forms()
    bodies.attach(model)
    before = model.SerializeToString(deterministic=True)
    bodies.attach(model)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("case", FORMS, ids=str)
def test_a_form_of_its_own_keeps_its_node(case: MixerCase) -> None:
    model = mixer_model(mixer_inputs(case, "float32"))
    before = copy.deepcopy(model.graph)
    bodies.attach(model)
    assert model.graph == before


def test_an_unknown_number_of_taps_names_the_node() -> None:
    model = mixer_model(mixer_inputs(FORMS[0], "float32"))
    (taps,) = [value for value in model.graph.input if value.name == "conv1d_weight"]
    taps.type.tensor_type.ClearField("shape")
    with pytest.raises(IncompatibleModelError, match=r"node: .* number of taps of its weight"):
        bodies.attach(model)
