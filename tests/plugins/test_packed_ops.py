"""MambaMixer and Conv3x3 as ONNX Runtime custom operators, as one-node models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from conv3x3_vectors import (
    CONV3X3_CASES,
    CONV3X3_TOLERANCE,
    Conv3x3Case,
    conv3x3_error,
    conv3x3_inputs,
    conv3x3_truth,
)
from mixer_model import VALUES, mixer_model
from mixer_vectors import MIXER_CASES, MixerCase, mixer_inputs, mixer_truth
from one_node import infers_shapes
from vectors import TOLERANCE, error

from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime as ort

onnx = pytest.importorskip("onnx")

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)

DTYPES = ["float32", "float16"]
Arrays = dict[str, np.ndarray]


def session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op_num_threads", str(threads))
    settings.register_custom_ops_library(str(cpu.library_path()))
    return ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


def run(model: onnx.ModelProto, inputs: Arrays, threads: int = 1) -> list[np.ndarray]:
    names = {value.name for value in model.graph.input}
    feeds = {name: np.ascontiguousarray(v) for name, v in inputs.items() if name in names}
    return list(session(model, threads).run(None, feeds))


def conv3x3_model(
    inputs: Arrays, pads: Sequence[int] | None, *, weights: bool = True
) -> onnx.ModelProto:
    """The operator, x of any size; with `weights` these are constants."""
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(inputs["x"].dtype)
    attributes = {} if pads is None else {"pads": list(pads)}
    node = helper.make_node("Conv3x3", list(inputs), ["y"], domain="dvmsr", **attributes)
    constant = ("weight", "bias") if weights else ()
    given = [
        helper.make_tensor_value_info(name, kind, ["B", "H", "W", "C"] if name == "x" else None)
        for name in inputs
        if name not in constant
    ]
    graph = helper.make_graph(
        [node],
        "conv3x3",
        given,
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(inputs[name], name) for name in constant],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("dvmsr", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("weights", [True, False], ids=["constant", "fed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", MIXER_CASES, ids=str)
def test_mixer_equals_truth(case: MixerCase, dtype: str, weights: bool, threads: int) -> None:
    inputs = mixer_inputs(case, dtype)
    outputs = run(mixer_model(inputs, weights=weights), inputs, threads)
    tolerances = TOLERANCE[dtype], TOLERANCE[dtype], TOLERANCE["float32"]
    assert [output.dtype for output in outputs] == [dtype, dtype, "float32"]
    for output, truth, tolerance in zip(outputs, mixer_truth(inputs), tolerances, strict=True):
        assert output.shape == truth.shape
        assert error(output, truth) <= tolerance


def test_epsilon_is_1e_5_by_default() -> None:
    inputs = mixer_inputs(MixerCase(1, 9, 8, 4), "float32")
    inputs["x"] *= np.float32(3e-3)
    model = mixer_model(inputs)
    (epsilon,) = (a for a in model.graph.node[0].attribute if a.name == "epsilon")
    model.graph.node[0].attribute.remove(epsilon)
    y = run(model, inputs)[0]
    assert error(y, mixer_truth(inputs, 1e-5)[0]) <= TOLERANCE["float32"]
    assert error(y, mixer_truth(inputs, 2e-5)[0]) > 10 * TOLERANCE["float32"]


@pytest.mark.parametrize("weights", [True, False], ids=["constant", "fed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV3X3_CASES, ids=str)
def test_conv3x3_equals_truth(case: Conv3x3Case, dtype: str, weights: bool) -> None:
    inputs = conv3x3_inputs(case, dtype)
    (y,) = run(conv3x3_model(inputs, case.pads, weights=weights), inputs, 2)
    assert y.dtype == dtype
    assert y.shape == conv3x3_truth(*inputs.values(), case.pads).shape
    assert conv3x3_error(y, *inputs.values(), case.pads) <= CONV3X3_TOLERANCE[dtype]


def test_conv3x3_has_no_pads_by_default() -> None:
    inputs = conv3x3_inputs(Conv3x3Case(1, 5, 6, 2, 3), "float32")
    (y,) = run(conv3x3_model(inputs, None), inputs)
    assert y.shape == (1, 3, 4, 3)


NAMED = {
    "x": ("B", "L", "C"), "tail": ("B", "T", "D"), "h0": ("B", "D", "N"),
    "in_proj_x": ("C", "D"), "out_proj": ("D", "E"), "A": ("D", "N"),
}  # fmt: skip


def mixer_shapes(inputs: Arrays, weights: bool, named: Sequence[str]) -> list[list[str | int]]:
    model = mixer_model(inputs, weights=weights)
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        for i, dimension in enumerate(shape.dim):
            dimension.ClearField("dim_value")
            dimension.ClearField("dim_param")
            if value.name in named:
                dimension.dim_param = NAMED[value.name][i]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return [output.shape for output in session(model).get_outputs()]


@infers_shapes
def test_shapes_are_inferred_from_all_inputs() -> None:
    whole = mixer_inputs(MixerCase(1, 9, 8, 16, width=4, channels=6, out_channels=5), "float16")
    bare = mixer_inputs(MixerCase(1, 9, 8, 16, norm=False, in_proj=False, out_proj=False))
    bare = {name: value.astype(np.float32) for name, value in bare.items()}
    assert mixer_shapes(whole, False, list(NAMED)) == [
        ["B", "L", "E"], ["B", "T", "D"], ["B", "D", "N"],
    ]  # fmt: skip
    assert mixer_shapes(whole, True, ["x"]) == [["B", "L", 5], ["B", 3, 8], ["B", 8, 16]]
    assert mixer_shapes(bare, True, ["x"]) == [["B", "L", 8], ["B", 3, 8], ["B", 8, 16]]
    assert mixer_shapes(bare, False, ["x", "h0"]) == [["B", "L", "D"], [], ["B", "D", "N"]]
    assert mixer_shapes(whole, False, []) == [[], [], []]


@pytest.mark.parametrize(
    ("pads", "shape"),
    [
        ((1, 1, 1, 1), ["B", "H", "W", 6]),
        ((1, 1, 1, 0), []),
        ((0, 0, 0, 0), []),
    ],
)
def test_a_convolution_keeps_what_is_known_of_its_pixels(
    pads: tuple[int, ...], shape: list[str | int]
) -> None:
    model = conv3x3_model(conv3x3_inputs(Conv3x3Case(1, 5, 7, 4, 6), "float32"), pads)
    assert session(model).get_outputs()[0].shape == shape
    for dimension, size in zip(
        model.graph.input[0].type.tensor_type.shape.dim[1:3], (5, 7), strict=True
    ):
        dimension.dim_value = size
    top, left, bottom, right = pads
    sized = ["B", 3 + top + bottom, 5 + left + right, 6]
    assert session(model).get_outputs()[0].shape == sized


def test_both_win_over_function_bodies_of_the_same_name() -> None:
    inputs = mixer_inputs(MixerCase(1, 9, 8, 16, norm=False), "float16")
    pixels = conv3x3_inputs(Conv3x3Case(1, 5, 6, 3, 3), "float16")
    mixer, conv = mixer_model(inputs, weights=True), conv3x3_model(pixels, (1, 1, 1, 1))
    for model, name in ((mixer, "MambaMixer"), (conv, "Conv3x3")):
        (node,) = model.graph.node
        given = [f"in{i}" for i in range(len(node.input))]
        copies = [onnx.helper.make_node("Identity", given[:1], [name]) for name in node.output]
        attributes = [attribute.name for attribute in node.attribute]
        model.functions.append(
            onnx.helper.make_function(
                "dvmsr", name, given, list(node.output), copies, model.opset_import[:1], attributes
            )
        )
    assert error(run(mixer, inputs)[0], mixer_truth(inputs)[0]) <= TOLERANCE["float16"]
    (y,) = run(conv, pixels)
    assert conv3x3_error(y, *pixels.values(), (1, 1, 1, 1)) <= CONV3X3_TOLERANCE["float16"]


def test_one_session_from_several_threads() -> None:
    inputs = mixer_inputs(MixerCase(1, 500, 40, 16), "float32")
    one = session(mixer_model(inputs, weights=True), 2)
    cases = [{**inputs, "x": inputs["x"][:, :length]} for length in (3, 130, 500)]
    feeds = [{name: np.ascontiguousarray(case[name]) for name in VALUES} for case in cases]
    expected = [one.run(None, feed) for feed in feeds]
    same: list[bool] = []

    def work(i: int) -> None:
        outputs = one.run(None, feeds[i % 3])
        same.append(all(map(np.array_equal, outputs, expected[i % 3])))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(9)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert same == [True] * 9


def _one_more(array: np.ndarray, axis: int) -> np.ndarray:
    return np.concatenate([array, array.take([0], axis)], axis)


BAD_MIXERS = [
    ("x", lambda a: a[0], "x has shape (5, 6) but must be (B, L, C)"),
    ("in_proj_x", lambda a: _one_more(a, 0), "(C, D) with C = 6 as in x"),
    ("in_proj_z", lambda a: a[:, 1:], "(C, D) with D = 8 as in in_proj_x"),
    ("conv1d_weight", lambda a: a[:, :0], "(D, K) with K at least 1"),
    ("x_proj_C", lambda a: a[:, 1:], "(D, N) with N = 16 as in x_proj_B"),
    ("dt_proj", lambda a: a[1:], "(R, D) with R = 2 as in x_proj_dt"),
    ("out_proj", lambda a: a[1:], "(D, E) with D = 8 as in in_proj_x"),
    ("tail", lambda a: a[:, 1:], "tail has shape (2, 2, 8) but must be (B, K-1, D) with K-1 = 3"),
    ("h0", lambda a: a[:1], "h0 has shape (1, 8, 16) but must be (B, D, N) with B = 2 as in x"),
    ("norm_bias", lambda a: a[1:], "norm_bias has shape (5) but must be (C) with C = 6 as in x"),
]


@pytest.mark.parametrize("weights", [True, False], ids=["constant", "fed"])
@pytest.mark.parametrize(
    ("name", "damage", "message"), BAD_MIXERS, ids=lambda v: None if callable(v) else v
)
def test_a_wrong_shape_is_refused(
    name: str, damage: Callable[[np.ndarray], np.ndarray], message: str, weights: bool
) -> None:
    inputs = mixer_inputs(MixerCase(2, 5, 8, 16), "float32")
    inputs[name] = np.ascontiguousarray(damage(inputs[name]))
    model = mixer_model(inputs, weights=weights)
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match="dvmsr MambaMixer: ") as caught:
        run(model, inputs)
    assert "export the model again" in str(caught.value)
    if not weights:  # else these are held to each other before x comes
        assert message in str(caught.value)


def test_without_in_proj_rows_are_twice_as_wide() -> None:
    inputs = mixer_inputs(MixerCase(1, 5, 8, 4, in_proj=False, norm=False), "float32")
    inputs["x"] = inputs["x"][..., :15]
    with pytest.raises(Exception, match="MambaMixer") as caught:
        run(mixer_model(inputs), inputs)
    message = "conv1d_weight has shape (8, 4) but must be (D, K) with 2D = 15 as in x"
    assert message in str(caught.value)
    with pytest.raises(Exception, match="MambaMixer") as caught:
        run(mixer_model(inputs, weights=True), inputs)
    assert "2D = 15" in str(caught.value)


@pytest.mark.parametrize(
    ("there", "missing"),
    [("in_proj_x", "in_proj_z"), ("in_proj_z", "in_proj_x"), ("norm_weight", "norm_bias")],
)
def test_half_of_a_pair_is_refused_at_load(there: str, missing: str) -> None:
    inputs = mixer_inputs(MixerCase(1, 5, 8, 4), "float32")
    del inputs[missing]
    with pytest.raises(Exception, match="MambaMixer") as caught:
        session(mixer_model(inputs))
    message = f"{missing} is missing where {there} is given; give both or neither"
    assert f"dvmsr MambaMixer: {message}" in str(caught.value)


@pytest.mark.parametrize("weights", [True, False], ids=["constant", "fed"])
def test_a_missing_weight_is_refused(weights: bool) -> None:
    inputs = mixer_inputs(MixerCase(1, 5, 8, 4), "float32")
    del inputs["A"]
    with pytest.raises(Exception, match=r"MambaMixer|Required inputs"):
        run(mixer_model(inputs, weights=weights), inputs)


@pytest.mark.parametrize(("name", "dtype"), [("out_proj", "float16"), ("A", "float16")])
def test_another_type_is_refused_at_load(name: str, dtype: str) -> None:
    inputs = mixer_inputs(MixerCase(1, 5, 8, 4), "float32")
    inputs[name] = inputs[name].astype(dtype)
    with pytest.raises(Exception, match="MambaMixer"):
        session(mixer_model(inputs))


@pytest.mark.parametrize("pads", [(1, 1, 1), (1, 1, 1, 2), (1, -1, 1, 1), (1, 1, 1, 1, 1)], ids=str)
def test_pads_that_are_none_are_refused_at_load(pads: tuple[int, ...]) -> None:
    model = conv3x3_model(conv3x3_inputs(Conv3x3Case(1, 5, 5, 2, 2), "float32"), pads)
    with pytest.raises(Exception, match=r"dvmsr Conv3x3: pads must be four numbers .* 0 or 1"):
        session(model)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("x", lambda a: a[:, :1], "x has shape (1, 1, 6, 3) but must be (B, H, W, C) with H-2"),
        ("x", lambda a: a[0], "x has shape (5, 6, 3) but must be (B, H, W, C)"),
        ("weight", lambda a: a[..., :2], "weight has shape (4, 3, 3, 2) but must be (E, C, 3, 3)"),
        ("weight", lambda a: a[:, 1:], "must be (E, C, 3, 3) with C = 3 as in x"),
        ("bias", lambda a: a[1:], "bias has shape (3) but must be (E) with E = 4 as in weight"),
    ],
    ids=lambda value: None if callable(value) else value,
)
def test_a_wrong_shape_of_pixels_is_refused(
    name: str, damage: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    inputs = conv3x3_inputs(Conv3x3Case(1, 5, 6, 3, 4), "float32")
    inputs[name] = np.ascontiguousarray(damage(inputs[name]))
    model = conv3x3_model(inputs, (0, 0, 0, 0), weights=False)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match="dvmsr Conv3x3: ") as caught:
        run(model, inputs)
    assert message in str(caught.value)
