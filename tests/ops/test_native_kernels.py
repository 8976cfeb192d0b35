"""The C++ kernels through their C interface, against the FP64 truth; needs no torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import (
    CHANNEL_MAJOR_CASES,
    CONV_CASES,
    CONV_INPUTS,
    PER_TOKEN,
    SCAN_CASES,
    SCAN_INPUTS,
    TOLERANCE,
    ConvCase,
    ScanCase,
    cast,
    channels_first,
    conv_inputs,
    conv_truth,
    error,
    scan_inputs,
    scan_truth,
)

from dvmsr.errors import DvmsrError
from dvmsr.kernels import cpu

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)

DTYPES = ["float32", "float16", "float64"]


def _pointers(tensors: dict[str, np.ndarray]) -> dict[str, int]:
    return {k: v.ctypes.data for k, v in tensors.items()}


def scan(
    inputs: dict[str, np.ndarray],
    threads: int = 1,
    softplus: bool = True,
    channel_major: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    u, B = inputs["u"], inputs["B"]
    y, h_last = np.full_like(u, np.nan), np.full_like(inputs["h0"], np.nan)
    form = softplus, channel_major
    if channel_major:
        u, B = u.transpose(0, 2, 1), B.transpose(0, 3, 1, 2)
    sizes = *u.shape, *B.shape[2:]
    cpu.call(
        "selective_scan_forward",
        cpu.ScanInputs(cpu.DTYPES[str(u.dtype)], *form, *sizes, **_pointers(inputs)),
        cpu.ScanOutputs(y.ctypes.data, h_last.ctypes.data),
        threads=threads,
    )
    return y, h_last


def conv(
    inputs: dict[str, np.ndarray], threads: int = 1, activation: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    x, weight = inputs["x"], inputs["weight"]
    y, new_tail = np.full_like(x, np.nan), np.full_like(inputs["tail"], np.nan)
    cpu.call(
        "causal_conv1d_forward",
        cpu.ConvInputs(
            cpu.DTYPES[str(x.dtype)], activation, *x.shape, weight.shape[1], **_pointers(inputs)
        ),
        cpu.ConvOutputs(y.ctypes.data, new_tail.ctypes.data),
        threads=threads,
    )
    return y, new_tail


@pytest.mark.parametrize("threads", [1, 2, 24])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [*SCAN_CASES, *CHANNEL_MAJOR_CASES], ids=str)
def test_scan_equals_sequential_fp64(case: ScanCase, dtype: str, threads: int) -> None:
    inputs = cast(scan_inputs(case), dtype)
    y, h_last = scan(inputs, threads, case.softplus, case.channel_major)
    y_truth, h_truth = scan_truth(inputs, case.softplus, case.channel_major)
    assert error(y, y_truth) <= TOLERANCE[dtype]
    assert error(h_last, h_truth) <= min(TOLERANCE[dtype], TOLERANCE["float32"])


@pytest.mark.parametrize("threads", [1, 2, 24])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
def test_either_layout_equals_the_other_to_the_bit(
    case: ScanCase, dtype: str, threads: int
) -> None:
    inputs = cast(scan_inputs(case), dtype)
    y, h_last = scan(inputs, threads, case.softplus)
    y_other, h_other = scan(channels_first(inputs), threads, case.softplus, channel_major=True)
    np.testing.assert_array_equal(y_other.transpose(0, 2, 1), y)
    np.testing.assert_array_equal(h_other, h_last)


@pytest.mark.parametrize("threads", [1, 24])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_conv_equals_fp64(case: ConvCase, dtype: str, threads: int) -> None:
    inputs = cast(conv_inputs(case), dtype)
    y, new_tail = conv(inputs, threads, case.activation)
    y_truth, tail_truth = conv_truth(inputs, case.activation)
    assert error(y, y_truth) <= TOLERANCE[dtype]
    np.testing.assert_array_equal(new_tail, tail_truth.astype(new_tail.dtype))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (3, 70, 40, 20))),
    groups=st.integers(1, 5),
    gate=st.booleans(),
    softplus=st.booleans(),
    channel_major=st.booleans(),
    seed=st.integers(0, 2**31),
    threads=st.integers(1, 4),
)
def test_scan_any_shape(
    shape: tuple[int, int, int, int],
    groups: int,
    gate: bool,
    softplus: bool,
    channel_major: bool,
    seed: int,
    threads: int,
) -> None:
    batch, length, per_group, state = shape
    form = gate, softplus, channel_major
    case = ScanCase(batch, length, groups * per_group, state, "usual", groups, *form)
    inputs = cast(scan_inputs(case, seed), "float32")
    truths = scan_truth(inputs, *form[1:])
    for actual, truth in zip(scan(inputs, threads, *form[1:]), truths, strict=True):
        assert error(actual, truth) <= TOLERANCE["float32"]


HALVES = [
    ScanCase(2, 61, 19, 16),
    ScanCase(1, 61, 12, 1, groups=4, gate=False),
    ScanCase(2, 61, 19, 16, softplus=False),
    ScanCase(2, 200, 19, 16, channel_major=True),
    ScanCase(1, 200, 12, 1, groups=4, gate=False, channel_major=True),
]


@pytest.mark.parametrize("case", HALVES, ids=str)
def test_state_in_state_out_joins_two_halves_exactly(case: ScanCase) -> None:
    whole = cast(scan_inputs(case), "float32")
    form = case.softplus, case.channel_major
    y, h_last = scan(whole, 1, *form)
    halves = []
    h = whole["h0"]
    axis = -1 if case.channel_major else 1
    for part in (np.arange(23), np.arange(23, case.length)):
        piece = {
            k: np.ascontiguousarray(v.take(part, axis)) if k in PER_TOKEN else v
            for k, v in whole.items()
        }
        piece["h0"] = h
        y_part, h = scan(piece, 1, *form)
        halves.append(y_part)
    np.testing.assert_array_equal(np.concatenate(halves, axis), y)
    np.testing.assert_array_equal(h, h_last)


PAYLOAD = np.uint32(0x7FC00001).view(
    np.float32
)  # a NaN whose bits a sloppy kernel would scale away


@pytest.mark.parametrize(
    "value", [np.nan, PAYLOAD, np.inf, -np.inf], ids=["nan", "nan1", "inf", "-inf"]
)
@pytest.mark.parametrize("name", ["u", "delta", "B", "h0"])
@pytest.mark.parametrize("threads", [1, 24], ids=["whole", "chunked"])
@pytest.mark.parametrize("channel_major", [False, True], ids=["tokens", "channels"])
def test_scan_propagates_nan_and_infinity(
    name: str, value: float, threads: int, channel_major: bool
) -> None:
    inputs = cast(scan_inputs(ScanCase(1, 2100, 20, 16, "slow decay")), "float32")
    inputs[name][0, 5].flat[3] = value
    with np.errstate(all="ignore"):
        truth = scan_truth(inputs)
    if channel_major:
        y, h_last = scan(channels_first(inputs), threads, channel_major=True)
        outputs = y.transpose(0, 2, 1), h_last
    else:
        outputs = scan(inputs, threads)
    for actual, expected in zip(outputs, truth, strict=True):
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
        np.testing.assert_array_equal(np.isinf(actual), np.isinf(expected))


@pytest.mark.parametrize("edge", [-130.0, -126.0, -125.0, -124.0, 0.0, 8.0])
def test_scan_at_the_edge_of_the_exponents(edge: float) -> None:
    """Channels side by side whose decays 2^x are ordinary, subnormal, zero and, if A > 0, large."""
    inputs = scan_inputs(ScanCase(1, 9, 35, 16))
    step = np.log1p(np.exp(inputs["delta"] + inputs["delta_bias"])).max()
    inputs["A"][::3] = edge * np.log(2) / step
    inputs = cast(inputs, "float32")
    for actual, expected in zip(scan(inputs), scan_truth(inputs), strict=True):
        assert error(actual, expected) <= TOLERANCE["float32"]


def test_half_conversion_is_exact_for_every_half() -> None:
    """An identity convolution passes each of the 65536 halves through; SiLU then rounds once."""
    x = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(1, 4096, 16)
    inputs = {
        "x": x,
        "weight": np.ones((16, 1), np.float32),
        "bias": np.zeros(16, np.float32),
        "tail": np.zeros((1, 0, 16), np.float16),
    }
    y, _ = conv(inputs)
    with np.errstate(all="ignore"):
        truth = (x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64)))).astype(np.float16)
    finite = np.isfinite(truth)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(truth))
    spacing = np.maximum(np.abs(truth[finite].astype(np.float64)) * 2.0**-10, 2.0**-24)
    assert (np.abs(y[finite].astype(np.float64) - truth[finite]) <= spacing).all()


BAD_SIZES = [
    (-1, 1, 1, 1, 1),
    (1, -1, 1, 1, 1),
    (1, 1, 0, 1, 1),
    (1, 1, 1, 1, 0),
    (1, 1, 6, 0, 1),
    (1, 1, 6, -2, 1),
    (1, 1, 6, 4, 1),
    (1, 1, 6, 12, 1),
]


@pytest.mark.parametrize("sizes", BAD_SIZES, ids=str)
def test_bad_sizes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(DvmsrError, match="invalid argument"):
        cpu.call(
            "selective_scan_forward",
            cpu.ScanInputs(0, 1, 0, *sizes),
            cpu.ScanOutputs(),
            threads=1,
        )


def test_half_has_no_backward() -> None:
    with pytest.raises(DvmsrError, match="invalid argument"):
        cpu.call(
            "causal_conv1d_backward",
            cpu.ConvInputs(cpu.DTYPES["float16"], 1, 1, 1, 1, 1),
            None,
            None,
            cpu.ConvGradients(),
            threads=1,
        )


def test_names_match_the_c_header() -> None:
    assert cpu.SCAN_ARGUMENTS.split() == list(SCAN_INPUTS)
    assert cpu.CONV_ARGUMENTS.split() == list(CONV_INPUTS)


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 70), st.integers(0, 70)),
    dtype=st.sampled_from(["float32", "float64"]),
    threads=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_transposes(shape: tuple[int, int, int], dtype: str, threads: int) -> None:
    source = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    to = np.full(shape[:1] + shape[:0:-1], -1, dtype)
    size = source.itemsize
    cpu.call("transpose", source.ctypes.data, to.ctypes.data, *shape, size, threads=threads)
    assert (to == source.swapaxes(1, 2)).all()


def test_transposes_no_elements_of_other_sizes() -> None:
    with pytest.raises(DvmsrError, match="invalid argument"):
        cpu.call("transpose", 0, 0, 1, 1, 1, 2, threads=1)
