"""`imresize` against MATLAB's own results, a plain loop, and Pillow away from the borders."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared import shared_dir

from dvmsr.data.imresize import imresize
from dvmsr.errors import UsageError


def naive_resize_row(row: list[float], out_length: int, scale: float) -> list[float]:
    """One row by the definition: every source sample, mirrored without end, under the kernel."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    stretch = min(scale, 1.0)
    reach = math.ceil(2 / stretch) + 1
    result = []
    for k in range(out_length):
        centre = (k + 0.5) / scale - 0.5
        total = norm = 0.0
        for i in range(math.floor(centre) - reach, math.floor(centre) + reach + 2):
            weight = kernel((centre - i) * stretch)
            j = i
            while not 0 <= j < len(row):
                j = -1 - j if j < 0 else 2 * len(row) - 1 - j
            total += weight * row[j]
            norm += weight
        result.append(total / norm)
    return result


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 40),
    scale=st.one_of(st.sampled_from([1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4]), st.floats(0.05, 6)),
    axis=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_a_plain_loop(length: int, scale: float, axis: int, seed: int) -> None:
    row = np.random.default_rng(seed).uniform(0, 1, length)
    image = np.repeat(row[None], 3, axis=0)
    image = image if axis == 1 else image.T
    result = imresize(image, scale)
    line = result[0] if axis == 1 else result[:, 0]
    expected = naive_resize_row(row.tolist(), math.ceil(scale * length), scale)
    np.testing.assert_allclose(line, expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["Set5", "Set14", "Kodak"])
def test_equals_matlab_bit_by_bit(dataset: str) -> None:
    folder = shared_dir() / "eval" / dataset
    paths = sorted((folder / "HR").glob("*.png"))
    assert paths
    for path in paths:
        low = np.asarray(Image.open(folder / "LRx4" / path.name))
        np.testing.assert_array_equal(imresize(np.asarray(Image.open(path)), 1 / 4), low, path.name)


@pytest.mark.parametrize("size", [(12, 15), (21, 30), (48, 60), (96, 120), (60, 20)])
def test_equals_pillow_away_from_the_borders(size: tuple[int, int]) -> None:
    """Pillow's bicubic has the same kernel and antialiasing but other borders."""
    image = np.random.default_rng(0).uniform(0, 255, (48, 60)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    rows, columns = (math.ceil(2 * max(1, size[k] / image.shape[k])) + 1 for k in (0, 1))
    inner = slice(rows, -rows), slice(columns, -columns)
    np.testing.assert_allclose(imresize(image, size=size)[inner], expected[inner], atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1 / 3, 1 / 4, 2])
def test_keeps_type_channels_and_constants(dtype: type, scale: float) -> None:
    image = np.full((9, 13, 3), 77, dtype)
    result = imresize(image, scale)
    assert result.dtype == dtype
    assert result.shape == (math.ceil(scale * 9), math.ceil(scale * 13), 3)
    np.testing.assert_allclose(result, 77, rtol=1e-6)


def test_integers_are_clamped_and_rounded_half_up() -> None:
    edge = np.repeat(np.array([[0, 0, 0, 255, 255, 255]], np.uint8), 6, axis=0)
    enlarged = imresize(edge, 3)
    assert enlarged.min() == 0  # the kernel overshoots: without a clamp, 0 - 1 is 255
    assert enlarged.max() == 255
    assert np.all(np.diff(enlarged.astype(int), axis=1)[:, 6:11] >= 0)
    # (0 + 1) / 2 at a step between two constant halves is a tie
    assert imresize(np.array([[0, 1], [0, 1]], np.uint8), size=(2, 1)).tolist() == [[1], [1]]


def test_the_axis_that_shrinks_most_is_rounded_first() -> None:
    image = np.random.default_rng(1).integers(0, 256, (24, 24), np.uint8)
    rows_first = imresize(imresize(image, size=(6, 24)), size=(6, 12))
    columns_first = imresize(imresize(image, size=(24, 12)), size=(6, 12))
    assert (rows_first != columns_first).any()
    np.testing.assert_array_equal(imresize(image, size=(6, 12)), rows_first)
    np.testing.assert_array_equal(imresize(image.T, size=(12, 6)), rows_first.T)


@pytest.mark.parametrize(
    ("image", "arguments", "message"),
    [
        (np.zeros((0, 3), np.uint8), {"scale": 2}, "non-empty"),
        (np.zeros(3, np.uint8), {"scale": 2}, "HxW"),
        (np.zeros((2, 2), np.int32), {"scale": 2}, "int32"),
        (np.zeros((2, 2), np.uint8), {}, "either"),
        (np.zeros((2, 2), np.uint8), {"scale": 2, "size": (1, 1)}, "either"),
        (np.zeros((2, 2), np.uint8), {"scale": 0}, "positive"),
        (np.zeros((2, 2), np.uint8), {"scale": float("nan")}, "positive"),
        (np.zeros((2, 2), np.uint8), {"size": (0, 4)}, "positive"),
    ],
)
def test_refuses(image: np.ndarray, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        imresize(image, **arguments)
