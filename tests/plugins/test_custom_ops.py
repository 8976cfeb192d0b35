"""The ONNX Runtime custom operators, as one-node models run by the installed onnxruntime."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable

import numpy as np
import pytest
from one_node import SCAN_AXES, infers_shapes, one_node_model
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

from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime as ort

onnx = pytest.importorskip("onnx")

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)

Arrays = dict[str, np.ndarray]
DTYPES = ["float32", "float16"]
THREADS_KEY = "session.intra_op_num_threads"


def session(model: onnx.ModelProto, threads: int = 1, **options: object) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry(THREADS_KEY, str(threads))
    for name, value in options.items():
        setattr(settings, name, value)
    settings.register_custom_ops_library(str(cpu.library_path()))
    return ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


@functools.cache
def shared_session(
    operator: str,
    dtype: str,
    threads: int,
    gate: bool = True,
    applied: bool | None = None,
    channel_major: bool | None = None,
) -> ort.InferenceSession:
    model = one_node_model(
        operator, dtype, ranks=False, gate=gate, applied=applied, channel_major=channel_major
    )
    return session(model, threads)


def check_scan(
    run: ort.InferenceSession,
    inputs: Arrays,
    dtype: str,
    softplus: bool = True,
    channel_major: bool = False,
) -> None:
    y, h_last = run.run(None, inputs)
    y_truth, h_truth = scan_truth(inputs, softplus, channel_major)
    assert (y.dtype, h_last.dtype) == (dtype, "float32")
    assert (y.shape, h_last.shape) == (y_truth.shape, h_truth.shape)
    assert error(y, y_truth) <= TOLERANCE[dtype]
    assert error(h_last, h_truth) <= TOLERANCE["float32"]


def check_conv(
    run: ort.InferenceSession, inputs: Arrays, dtype: str, activation: bool = True
) -> None:
    y, new_tail = run.run(None, inputs)
    y_truth, tail_truth = conv_truth(inputs, activation)
    assert (y.dtype, new_tail.dtype) == (dtype, dtype)
    assert y.shape == y_truth.shape
    assert error(y, y_truth) <= TOLERANCE[dtype]
    np.testing.assert_array_equal(new_tail, tail_truth.astype(dtype))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [
        *SCAN_CASES,
        *CHANNEL_MAJOR_CASES,
        ScanCase(0, 3, 4, 16),
        ScanCase(0, 3, 4, 16, channel_major=True),
    ],
    ids=str,
)
def test_scan_equals_truth(case: ScanCase, dtype: str, threads: int) -> None:
    form = case.gate, case.softplus, case.channel_major
    run = shared_session("SelectiveScan", dtype, threads, *form)
    check_scan(run, cast(scan_inputs(case), dtype), dtype, *form[1:])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [*CONV_CASES, ConvCase(0, 3, 4, 4)], ids=str)
def test_conv_equals_truth(case: ConvCase, dtype: str, threads: int) -> None:
    run = shared_session("CausalConv1d", dtype, threads, True, case.activation)
    check_conv(run, cast(conv_inputs(case), dtype), dtype, case.activation)


@pytest.mark.parametrize(
    ("operator", "attribute"),
    [("SelectiveScan", "delta_softplus"), ("CausalConv1d", "activation")],
)
def test_another_attribute_value_is_refused_at_load(operator: str, attribute: str) -> None:
    with pytest.raises(Exception, match=f"{operator}: {attribute} is 2 but must be 0 or 1"):
        session(one_node_model(operator, applied=2))
    if operator == "SelectiveScan":
        with pytest.raises(Exception, match=f"{operator}: channel_major is 2 but must be 0 or 1"):
            session(one_node_model(operator, channel_major=2))


def test_a_convolution_has_no_channel_major_form() -> None:
    session(one_node_model("CausalConv1d", channel_major=0))
    with pytest.raises(Exception, match="CausalConv1d: channel_major is 1, but this operator"):
        session(one_node_model("CausalConv1d", channel_major=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_wins_over_a_function_body_of_the_same_name(level: str, dtype: str) -> None:
    chosen = getattr(ort.GraphOptimizationLevel, level)
    for operator, check, inputs in (
        ("SelectiveScan", check_scan, scan_inputs(ScanCase(1, 9, 6, 16))),
        ("CausalConv1d", check_conv, conv_inputs(ConvCase(1, 9, 6, 4))),
    ):
        model = one_node_model(operator, dtype, body=True)
        check(session(model, graph_optimization_level=chosen), cast(inputs, dtype), dtype)


def test_both_precisions_in_one_graph() -> None:
    """Types of values between the nodes follow from the operators alone."""
    conv, scan = one_node_model("CausalConv1d").graph, one_node_model("SelectiveScan", "float16")
    graph = scan.graph
    for part in (*conv.node, *conv.input, *conv.output):
        part.name = f"conv_{part.name}"
    for names in (conv.node[0].input, conv.node[0].output):
        names[:] = [f"conv_{name}" for name in names]
    cast_node = onnx.helper.make_node("Cast", ["conv_y"], ["u"], to=onnx.TensorProto.FLOAT16)
    nodes = [*conv.node, cast_node, *graph.node]
    del graph.node[:], graph.input[0]  # u comes from the convolution
    graph.node.extend(nodes)
    graph.input.extend(conv.input)

    conv_in = cast(conv_inputs(ConvCase(1, 9, 6, 4)), "float32")
    scan_in = cast(scan_inputs(ScanCase(1, 9, 6, 16)), "float16")
    u = conv_truth(conv_in)[0].astype("float16")
    feeds = {f"conv_{name}": value for name, value in conv_in.items()} | scan_in
    del feeds["u"]
    y, _ = session(scan).run(None, feeds)
    assert y.dtype == "float16"
    assert error(y, scan_truth(scan_in | {"u": u})[0]) <= 2 * TOLERANCE["float16"]


@infers_shapes
def test_outputs_take_the_symbolic_shapes_of_the_inputs() -> None:
    def shapes(
        operator: str, ranks: bool, channel_major: int | None = None
    ) -> list[tuple[list[str | int], str]]:
        model = one_node_model(operator, "float16", ranks=ranks, channel_major=channel_major)
        outputs = session(model).get_outputs()
        return [(value.shape, value.type) for value in outputs]

    assert shapes("SelectiveScan", True) == [
        (["B", "L", "D"], "tensor(float16)"),
        (["B", "D", "N"], "tensor(float)"),
    ]
    assert shapes("SelectiveScan", True, 1) == [
        (["B", "D", "L"], "tensor(float16)"),
        (["B", "D", "N"], "tensor(float)"),
    ]
    assert shapes("CausalConv1d", True) == [
        (["B", "L", "D"], "tensor(float16)"),
        (["B", "T", "D"], "tensor(float16)"),
    ]
    assert shapes("SelectiveScan", False) == [([], "tensor(float16)"), ([], "tensor(float)")]


def test_a_split_sequence_equals_the_whole() -> None:
    inputs = cast(scan_inputs(ScanCase(2, 40, 10, 16)), "float32")
    run = shared_session("SelectiveScan", "float32", 2)
    y, h_last = run.run(None, inputs)
    state, parts = inputs["h0"], []
    for cut in (slice(0, 1), slice(1, 17), slice(17, 17), slice(17, 40)):
        piece = {k: v[:, cut] if SCAN_AXES[k][:2] == "BL" else v for k, v in inputs.items()}
        part, state = run.run(None, piece | {"h0": state})
        parts.append(part)
    assert error(np.concatenate(parts, 1), y.astype("float64")) <= TOLERANCE["float32"]
    assert error(state, h_last.astype("float64")) <= TOLERANCE["float32"]


@pytest.mark.parametrize("mode", ["ORT_SEQUENTIAL", "ORT_PARALLEL"])
def test_two_sessions_from_several_threads(mode: str) -> None:
    options = {"execution_mode": getattr(ort.ExecutionMode, mode), "inter_op_num_threads": 2}
    sessions = [session(one_node_model("SelectiveScan"), threads, **options) for threads in (1, 2)]
    failures: list[BaseException] = []

    def work(run: ort.InferenceSession, seed: int) -> None:
        try:
            for length in (3, 700, 31):
                inputs = scan_inputs(ScanCase(1, length, 40, 16), seed)
                check_scan(run, cast(inputs, "float32"), "float32")
        except BaseException as failure:
            failures.append(failure)

    workers = [
        threading.Thread(target=work, args=(run, seed)) for run in sessions for seed in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_sessions_come_and_go() -> None:
    inputs = cast(conv_inputs(ConvCase(1, 9, 6, 4)), "float32")
    for threads in (1, 2, 3, 1, 2, 3):
        check_conv(session(one_node_model("CausalConv1d"), threads), inputs, "float32")


def _one_more(array: np.ndarray, axis: int) -> np.ndarray:
    return np.concatenate([array, array.take([0], axis)], axis)


BAD_SCANS = [
    (
        "delta",
        lambda a: _one_more(a, 1),
        "delta has shape (2, 6, 8) but must be (B, L, D) with L = 5 as in u",
    ),
    ("A", lambda a: _one_more(a, 0), "A has shape (9, 16) but must be (D, N) with D = 8 as in u"),
    ("A", lambda a: a[:, :0], "A has shape (8, 0) but must be (D, N) with N at least 1"),
    (
        "B",
        lambda a: a[..., :15],
        "B has shape (2, 5, 1, 15) but must be (B, L, G, N) with N = 16 as in A",
    ),
    ("B", lambda a: a[:, :, 0], "B has shape (2, 5, 16) but must be (B, L, G, N)"),
    ("B", lambda a: a.repeat(3, 2), "B has 3 groups, which do not divide the 8 channels"),
    ("B", lambda a: a[:, :, :0], "B has shape (2, 5, 0, 16) but must be (B, L, G, N) with G at"),
    ("C", lambda a: a[0], "C has shape (5, 1, 16) but must be (B, L, G, N)"),
    (
        "C",
        lambda a: a.repeat(2, 2),
        "C has shape (2, 5, 2, 16) but must be (B, L, G, N) with G = 1",
    ),
    ("D", lambda a: a[:, None], "D has shape (8, 1) but must be (D)"),
    ("z", lambda a: a[:1], "z has shape (1, 5, 8) but must be (B, L, D) with B = 2 as in u"),
    ("delta_bias", lambda a: a[:1], "delta_bias has shape (1) but must be (D) with D = 8 as in u"),
    ("h0", lambda a: a[..., None], "h0 has shape (2, 8, 16, 1) but must be (B, D, N)"),
    ("u", lambda a: a[..., :0], "u has shape (2, 5, 0) but must be (B, L, D) with D at least 1"),
]
BAD_CHANNEL_MAJOR_SCANS = [
    ("delta", lambda a: _one_more(a, 2), "must be (B, D, L) with L = 5 as in u"),
    ("u", lambda a: a[:, :0], "u has shape (2, 0, 5) but must be (B, D, L) with D at least 1"),
    ("A", lambda a: _one_more(a, 0), "A has shape (9, 16) but must be (D, N) with D = 8 as in u"),
    (
        "C",
        lambda a: a.transpose(0, 3, 1, 2),
        "C has shape (2, 5, 1, 16) but must be (B, G, N, L) with G = 1 as in B",
    ),
    ("B", lambda a: a[:, 0], "B has shape (2, 16, 5) but must be (B, G, N, L)"),
    ("B", lambda a: a.repeat(3, 1), "B has 3 groups, which do not divide the 8 channels"),
    ("C", lambda a: a[:, :, :4], "must be (B, G, N, L) with N = 16 as in A"),
    ("z", lambda a: a.transpose(0, 2, 1), "z has shape (2, 5, 8) but must be (B, D, L)"),
]
BAD_CONVS = [
    ("x", lambda a: a[0], "x has shape (5, 8) but must be (B, L, D)"),
    ("weight", lambda a: a[:, None], "weight has shape (8, 1, 4) but must be (D, K)"),
    ("weight", lambda a: a[:, :0], "weight has shape (8, 0) but must be (D, K) with K at least 1"),
    ("bias", lambda a: a[:7], "bias has shape (7) but must be (D) with D = 8 as in x"),
    ("tail", lambda a: a[:, 1:], "tail has shape (2, 2, 8) but must be (B, K-1, D) with K-1 = 3"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("operator", "name", "damage", "message"),
    [("SelectiveScan", *bad) for bad in BAD_SCANS] + [("CausalConv1d", *bad) for bad in BAD_CONVS],
    ids=lambda value: None if callable(value) else value,
)
def test_wrong_shape_is_refused(
    operator: str, name: str, damage: Callable[[np.ndarray], np.ndarray], message: str, dtype: str
) -> None:
    inputs = (
        scan_inputs(ScanCase(2, 5, 8, 16))
        if operator == "SelectiveScan"
        else conv_inputs(ConvCase(2, 5, 8, 4))
    )
    inputs = cast(inputs, dtype)
    inputs[name] = np.ascontiguousarray(damage(inputs[name]))
    with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
        shared_session(operator, dtype, 1).run(None, inputs)
    assert f"dvmsr {operator}: {message}" in str(caught.value)
    assert "export the model again" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    BAD_CHANNEL_MAJOR_SCANS,
    ids=lambda value: None if callable(value) else value,
)
def test_wrong_channel_major_shape_is_refused(
    name: str, damage: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    inputs = cast(scan_inputs(ScanCase(2, 5, 8, 16, channel_major=True)), "float32")
    inputs[name] = np.ascontiguousarray(damage(inputs[name]))
    with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
        shared_session("SelectiveScan", "float32", 1, channel_major=True).run(None, inputs)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "name"),
    [("SelectiveScan", "A"), ("SelectiveScan", "z"), ("CausalConv1d", "weight")],
)
def test_wrong_type_is_refused_at_load(operator: str, name: str) -> None:
    model = one_node_model(operator, "float16")
    (value,) = (value for value in model.graph.input if value.name == name)
    was_half = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    value.type.tensor_type.elem_type = (
        onnx.TensorProto.FLOAT if was_half else onnx.TensorProto.FLOAT16
    )
    with pytest.raises(Exception, match=operator):
        session(model)


def test_a_gate_may_be_unnamed() -> None:
    inputs = cast(scan_inputs(ScanCase(1, 9, 6, 16, gate=False)), "float32")
    model = one_node_model("SelectiveScan", gate=False)
    model.graph.node[0].input.append("")
    check_scan(session(model), inputs, "float32")


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("body", [False, True])
def test_unnamed_tensor_is_refused(side: str, body: bool) -> None:
    model = one_node_model("CausalConv1d", body=body)
    getattr(model.graph.node[0], side)[1] = ""
    if side == "output":
        del model.graph.output[1]
    feeds = cast(conv_inputs(ConvCase(2, 5, 8, 4)), "float32")
    with pytest.raises(Exception, match=r"CausalConv1d|Required inputs"):
        session(model).run(None, feeds)


def test_old_runtime_is_refused_with_a_remedy() -> None:
    """A runtime without the interface version we need gets a status that says so."""
    create_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    get_version = ctypes.CFUNCTYPE(ctypes.c_void_p)
    calls: list[tuple[int, bytes]] = []

    @create_status
    def fake_create_status(code: int, message: bytes) -> int:
        calls.append((code, message))
        return 4711

    api = (ctypes.c_void_p * 1)(ctypes.cast(fake_create_status, ctypes.c_void_p).value)
    fake_get_api = get_api(lambda wanted: ctypes.addressof(api) if wanted < 20 else None)
    version = ctypes.create_string_buffer(b"1.19.2")
    fake_get_version = get_version(lambda: ctypes.addressof(version))
    base = (ctypes.c_void_p * 2)(
        ctypes.cast(fake_get_api, ctypes.c_void_p).value,
        ctypes.cast(fake_get_version, ctypes.c_void_p).value,
    )
    register = ctypes.CDLL(str(cpu.library_path())).RegisterCustomOps
    register.restype = ctypes.c_void_p
    register.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    assert register(None, base) == 4711
    ((code, message),) = calls
    assert code == 9  # ORT_NOT_IMPLEMENTED
    assert message.decode() == (
        "dvmsr: the custom operators need onnxruntime 1.20 or newer and this is 1.19.2; "
        "upgrade it with pip install -U onnxruntime"
    )
