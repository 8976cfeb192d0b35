"""PSNR and SSIM against closed forms and a plain loop over the windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvmsr.errors import UsageError
from dvmsr.eval.metrics import luma, psnr_y, ssim_y


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def naive_luma(image: np.ndarray) -> list[list[float]]:
    return [
        [16 + (65.481 * int(r) + 128.553 * int(g) + 24.966 * int(b)) / 255 for r, g, b in row]
        for row in image
    ]


def naive_ssim(a: list[list[float]], b: list[list[float]]) -> float:
    """Wang et al. 2004, Eq. 13-16: weighted moments about the mean, window by window."""
    gauss = [[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)]
    norm = sum(map(sum, gauss))
    values = []
    for top in range(len(a) - 10):
        for left in range(len(a[0]) - 10):
            window = [
                (gauss[i][j] / norm, a[top + i][left + j], b[top + i][left + j])
                for i in range(11)
                for j in range(11)
            ]
            mean_a = sum(w * x for w, x, _ in window)
            mean_b = sum(w * y for w, _, y in window)
            var_a = sum(w * (x - mean_a) ** 2 for w, x, _ in window)
            var_b = sum(w * (y - mean_b) ** 2 for w, _, y in window)
            cov = sum(w * (x - mean_a) * (y - mean_b) for w, x, y in window)
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * cov + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("rgb", "expected"),  # MATLAB: rgb2ycbcr(...) of doubles, times 255
    [
        ((0, 0, 0), 16.0),
        ((255, 255, 255), 235.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
    ],
)
def test_luma_is_bt601(rgb: tuple[int, int, int], expected: float) -> None:
    assert luma(np.array([[rgb]], np.uint8))[0, 0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("step", [1, 7, 255])
def test_psnr_of_a_constant_difference(step: int) -> None:
    """A gray difference of d is a luma difference of 219/255 d, the same in every pixel."""
    dark = np.zeros((9, 12, 3), np.uint8)
    expected = 20 * math.log10(255 / (step * 219 / 255))
    assert psnr_y(dark + np.uint8(step), dark, 2) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(11, 14),
    width=st.integers(11, 14),
    border=st.integers(0, 4),
    strength=st.sampled_from([0.02, 0.5, 1.0]),
)
def test_equal_plain_loops(
    seed: int, height: int, width: int, border: int, strength: float
) -> None:
    hr = noise(seed, height + 2 * border, width + 2 * border)
    mixed = (1 - strength) * hr + strength * noise(seed + 1, *hr.shape[:2])
    sr = np.rint(mixed).astype(np.uint8)
    inner = slice(border, border + height), slice(border, border + width)
    a, b = naive_luma(sr[inner]), naive_luma(hr[inner])
    errors = [(x - y) ** 2 for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)]
    psnr = 10 * math.log10(255**2 / (sum(errors) / len(errors)))
    assert psnr_y(sr, hr, border) == pytest.approx(psnr, abs=1e-9)
    assert ssim_y(sr, hr, border) == pytest.approx(naive_ssim(a, b), abs=1e-9)


def test_ssim_of_two_constants() -> None:
    """Without variance only the luminance term is left."""
    a, b = np.full((15, 20, 3), 200, np.uint8), np.full((15, 20, 3), 100, np.uint8)
    x, y = 16 + 200 * 219 / 255, 16 + 100 * 219 / 255
    c1 = (0.01 * 255) ** 2
    expected = (2 * x * y + c1) / (x * x + y * y + c1)
    assert ssim_y(a, b, 2) == pytest.approx(expected, abs=1e-9)


def test_equal_images() -> None:
    image = noise(3, 20, 24)
    assert psnr_y(image, image, 4) == math.inf
    assert ssim_y(image, image, 4) == pytest.approx(1, abs=1e-12)


def test_the_border_is_left_out() -> None:
    hr = noise(4, 24, 28)
    sr = hr.copy()
    sr[:4], sr[-4:], sr[:, :4], sr[:, -4:] = 0, 0, 0, 0
    assert psnr_y(sr, hr, 4) == math.inf
    assert psnr_y(sr, hr, 3) < 100


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
def test_refuses(metric) -> None:
    good = noise(0, 19, 19)
    metric(good, good, 4)
    with pytest.raises(UsageError, match="differ in size"):
        metric(good, good[:-1], 4)
    with pytest.raises(UsageError, match="uint8"):
        metric(good.astype(np.float32), good, 4)
    with pytest.raises(UsageError, match="uint8"):
        metric(good[..., 0], good[..., 0], 4)
    with pytest.raises(UsageError, match="border of 10"):
        metric(good, good, 10)
    with pytest.raises(UsageError, match="border of -1"):
        metric(good, good, -1)


def test_ssim_refuses_an_image_without_a_whole_window() -> None:
    image = noise(0, 18, 30)
    assert psnr_y(image, image, 4) == math.inf
    with pytest.raises(UsageError, match="fewer than 11"):
        ssim_y(image, image, 4)
