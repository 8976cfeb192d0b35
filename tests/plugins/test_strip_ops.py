"""StripConv3x3 and StripAdd as ONNX Runtime custom operators, as one-node models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strip_vectors import (
    STRIP_CASES,
    StripCase,
    strip_add_inputs,
    strip_add_truth,
    strip_conv_inputs,
    strip_conv_is_true,
    strip_model,
)

from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime as ort

pytest.importorskip("onnx")
pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)

DTYPES = ["float32", "float16"]
Arrays = dict[str, np.ndarray]


def run(
    op: str, inputs: Arrays, constant: tuple[str, ...] = (), threads: int = 2
) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op_num_threads", str(threads))
    options.register_custom_ops_library(str(cpu.library_path()))
    model = strip_model(op, inputs, constant).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(
        None, {name: value for name, value in inputs.items() if name not in constant}
    )
    return outputs


@pytest.mark.parametrize("constant", [("weight", "bias"), ()], ids=["constant", "fed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", STRIP_CASES, ids=str)
def test_convolution_equals_fp64(case: StripCase, dtype: str, constant: tuple[str, ...]) -> None:
    inputs = strip_conv_inputs(case, dtype)
    outputs = run("StripConv3x3", inputs, constant)
    assert [output.dtype for output in outputs] == [dtype, dtype]
    assert strip_conv_is_true(outputs, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", STRIP_CASES, ids=str)
def test_sum_is_rounded_once(case: StripCase, dtype: str) -> None:
    inputs = strip_add_inputs(case, dtype)
    for output, truth in zip(run("StripAdd", inputs), strip_add_truth(inputs), strict=True):
        np.testing.assert_array_equal(output, truth, strict=True)


CASES = st.builds(
    StripCase,
    batch=st.integers(0, 3),
    height=st.integers(1, 12),
    width=st.integers(1, 15),
    channels=st.integers(1, 40),
    out_channels=st.integers(1, 20),
    top=st.booleans(),
    bottom=st.booleans(),
    waiting=st.integers(1, 6),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=CASES, dtype=st.sampled_from(DTYPES), threads=st.integers(1, 4))
def test_any_strip(case: StripCase, dtype: str, threads: int) -> None:
    inputs = strip_conv_inputs(case, dtype)
    assert strip_conv_is_true(run("StripConv3x3", inputs, threads=threads), inputs)
    inputs = strip_add_inputs(case, dtype)
    outputs = run("StripAdd", inputs, threads=threads)
    for output, truth in zip(outputs, strip_add_truth(inputs), strict=True):
        np.testing.assert_array_equal(output, truth, strict=True)


@pytest.mark.parametrize("height", [1, 2, 7])
@pytest.mark.parametrize("op", ["StripConv3x3", "StripAdd"])
def test_at_the_top_the_result_does_not_depend_on_the_state(op: str, height: int) -> None:
    case = StripCase(2, height, 6, 9, 5, top=True, bottom=True, waiting=3)
    make = strip_conv_inputs if op == "StripConv3x3" else strip_add_inputs
    inputs = make(case, "float32")
    state = "rows" if op == "StripConv3x3" else "waiting"
    expected, _ = run(op, inputs)
    inputs[state] = np.full_like(inputs[state], np.nan)
    np.testing.assert_array_equal(run(op, inputs)[0], expected)


def test_sums_of_large_strips_are_shared_by_threads() -> None:
    inputs = strip_add_inputs(StripCase(1, 40, 300, 17, 1, waiting=5), "float32")
    for threads in (1, 2, 7):
        outputs = run("StripAdd", inputs, threads=threads)
        np.testing.assert_array_equal(outputs[0], strip_add_truth(inputs)[0])


BAD = [
    ("StripConv3x3", "rows", lambda a: a[:, 1:], "rows has shape (2, 1, 6, 9) but must be (B, 2"),
    ("StripConv3x3", "rows", lambda a: a[:1], "(B, 2, W, C) with B = 2 as in x"),
    ("StripConv3x3", "top", lambda a: a + 2, "top is 2 but must be 0 or 1"),
    ("StripConv3x3", "bottom", lambda a: a - 1, "bottom is -1 but must be 0 or 1"),
    ("StripConv3x3", "bottom", lambda a: a.repeat(2), "bottom has shape (2) but must be (1)"),
    ("StripConv3x3", "x", lambda a: a[:, :0], "x has shape (2, 0, 6, 9) but must be (B, H, W, C)"),
    ("StripAdd", "waiting", lambda a: a[..., 1:], "(B, Q, W, C) with C = 9 as in deep"),
    ("StripAdd", "top", lambda a: a + 2, "top is 2 but must be 0 or 1"),
    ("StripAdd", "x", lambda a: a[:, 2:], "waiting and x have 8 rows together, fewer than the 9"),
]


@pytest.mark.parametrize(
    ("op", "name", "damage", "message"), BAD, ids=lambda v: v if isinstance(v, str) else None
)
def test_what_does_not_fit_is_refused(
    op: str, name: str, damage: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    case = StripCase(2, 7, 6, 9, 5, waiting=3)
    inputs = (strip_conv_inputs if op == "StripConv3x3" else strip_add_inputs)(case, "float32")
    inputs[name] = np.ascontiguousarray(damage(inputs[name]))
    with pytest.raises(Exception, match=f"dvmsr {op}: ") as caught:
        run(op, inputs)
    assert message in str(caught.value)
