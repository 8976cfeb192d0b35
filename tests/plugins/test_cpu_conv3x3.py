"""The token-major convolution's CPU kernel through its C interface, against the FP64 truth."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_kernels import packed_conv3x3

from dvmsr.errors import DvmsrError
from dvmsr.kernels import cpu

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)

DTYPES = ["float32", "float16"]
TILE = 4
"""Pixels of the result that are computed together, on each side."""


def check(case: Conv3x3Case, dtype: str, threads: int = 1, seed: int = 0) -> None:
    x, weight, bias = conv3x3_inputs(case, dtype, seed).values()
    with packed_conv3x3(weight, bias) as conv:
        y = conv(x, case.pads, threads)
    assert y.dtype == dtype
    assert y.shape == conv3x3_truth(x, weight, bias, case.pads).shape
    assert conv3x3_error(y, x, weight, bias, case.pads) <= CONV3X3_TOLERANCE[dtype]


@pytest.mark.parametrize("threads", [1, 2, 24])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV3X3_CASES, ids=str)
def test_equals_fp64(case: Conv3x3Case, dtype: str, threads: int) -> None:
    check(case, dtype, threads)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    case=st.builds(
        Conv3x3Case,
        batch=st.integers(0, 3),
        height=st.integers(2, 15),
        width=st.integers(2, 15),
        channels=st.integers(1, 70),
        out_channels=st.integers(1, 70),
        pads=st.tuples(*[st.integers(0, 1)] * 4),
    ),
    dtype=st.sampled_from(DTYPES),
    threads=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_any_shape(case: Conv3x3Case, dtype: str, threads: int, seed: int) -> None:
    check(case, dtype, threads, seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("above", [1, 2, 5, 9, 13])
def test_rows_above_may_lie_elsewhere(above: int, dtype: str) -> None:
    case = Conv3x3Case(2, 13, 22, 20, 18, (1, 1, 0, 1))
    x, weight, bias = conv3x3_inputs(case, dtype).values()
    with packed_conv3x3(weight, bias) as conv:
        expected = conv(x, case.pads)
        for threads in (1, 3):
            np.testing.assert_array_equal(conv(x, case.pads, threads, above), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_neither_threads_nor_the_batch_change_a_bit(dtype: str) -> None:
    case = Conv3x3Case(3, 30, 41, 20, 18)
    x, weight, bias = conv3x3_inputs(case, dtype).values()
    x[1] = np.nan
    with packed_conv3x3(weight, bias) as conv:
        y = conv(x, case.pads)
        for threads in (2, 3, 5, 16):
            np.testing.assert_array_equal(conv(x, case.pads, threads), y)
        for i in range(3):
            np.testing.assert_array_equal(conv(x[i : i + 1], case.pads), y[i : i + 1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", [(0, 0), (3, 4), (8, 6), (12, 13)], ids=str)
def test_nan_and_infinity_stay_in_their_tiles(place: tuple[int, int], value: float) -> None:
    """All that reads one is neither finite nor anything else; whole tiles may be, others not."""
    case = Conv3x3Case(1, 13, 14, 5, 6)
    x, weight, bias = conv3x3_inputs(case, "float32").values()
    with packed_conv3x3(weight, bias) as conv:
        clean = conv(x, case.pads)
        x[(0, *place, 2)] = value
        y = conv(x, case.pads)
    with np.errstate(invalid="ignore"):
        reads = ~np.isfinite(conv3x3_truth(x, weight, bias, case.pads))
    assert not np.isfinite(y[reads]).any()
    tiles = np.zeros_like(reads)
    for row, column in {(i // TILE, j // TILE) for _, i, j, _ in np.argwhere(reads)}:
        tiles[:, row * TILE :, column * TILE :][:, :TILE, :TILE] = True
    np.testing.assert_array_equal(y[~tiles], clean[~tiles])


def test_concurrent_calls_of_one_convolution() -> None:
    case = Conv3x3Case(1, 30, 20, 16, 16)
    _, weight, bias = conv3x3_inputs(case, "float32").values()
    xs = [conv3x3_inputs(case, "float32", seed)["x"] for seed in range(4)] * 3
    with packed_conv3x3(weight, bias) as conv, ThreadPoolExecutor(4) as pool:
        expected = [conv(x, case.pads) for x in xs]
        for y, one in zip(pool.map(lambda x: conv(x, case.pads, 2), xs), expected, strict=True):
            np.testing.assert_array_equal(y, one)


@pytest.mark.parametrize(
    "sizes", [(0, 0, 5), (0, -1, 5), (0, 5, 0), (2, 5, 5), (-1, 5, 5)], ids=str
)
def test_weights_that_do_not_fit_are_refused(sizes: tuple[int, int, int]) -> None:
    with (
        pytest.raises(DvmsrError, match="native conv3x3_pack: invalid argument"),
        cpu.packed("conv3x3", cpu.Conv3x3Weights(*sizes)),
    ):
        pass


@pytest.mark.parametrize(
    "sizes",
    [
        (-1, 5, 5, 1, 1, 1, 1), (1, -1, 5, 1, 1, 1, 1), (1, 5, -1, 1, 1, 1, 1),
        (1, 5, 5, 2, 1, 1, 1), (1, 5, 5, 1, 1, 1, -1), (1, 1, 5, 0, 0, 0, 0), (1, 5, 1, 0, 0, 0, 0),
        (1, 5, 5, 1, 1, 1, 1, -1),
    ],
    ids=str,
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(sizes: tuple[int, ...]) -> None:
    _, weight, bias = conv3x3_inputs(Conv3x3Case(1, 3, 3, 2, 2), "float32").values()
    with (
        packed_conv3x3(weight, bias) as conv,
        pytest.raises(DvmsrError, match="native conv3x3_forward: invalid argument"),
    ):
        cpu.call("conv3x3_forward", conv._handle, cpu.Conv3x3Inputs(*sizes), None, threads=1)
