"""PSNR and SSIM as the super-resolution papers measure them.

Both look at the luma Y of BT.601 (MATLAB's `rgb2ycbcr`, 16 to 235, not rounded) and leave a border
out, by custom as wide as the scale.
"""

import math

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import UsageError

PEAK = 255.0
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * PEAK) ** 2
SSIM_C2 = (0.03 * PEAK) ** 2


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Y of BT.601, 16 to 235 and not rounded, (H, W), of an RGB image, uint8 (H, W, 3)."""
    return 16.0 + rgb @ (np.array([65.481, 128.553, 24.966]) / 255.0)


def _cropped_lumas(
    sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int, least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lumas of two images without their borders, at least `least` pixels a side."""
    for image in (sr, hr):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UsageError(f"PSNR and SSIM take uint8 HxWx3, not {image.dtype} {image.shape}")
    if sr.shape != hr.shape:
        raise UsageError(f"the images to compare differ in size: {sr.shape} and {hr.shape}")
    height, width = (length - 2 * border for length in sr.shape[:2])
    if border < 0 or min(height, width) < least:
        raise UsageError(
            f"{sr.shape[1]}x{sr.shape[0]} pixels leave fewer than {least} a side inside a border "
            f"of {border}; take a larger image"
        )
    inner = slice(border, border + height), slice(border, border + width)
    return luma(sr[inner]), luma(hr[inner])


def psnr_y(sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> float:
    """Peak signal-to-noise ratio of the lumas, in dB; infinite for equal images.

    Args:
        sr: the image to judge, uint8 RGB (H, W, 3).
        hr: the truth, of the same size.
        border: pixels left out on each side.

    Raises:
        UsageError: for another type, sizes that differ, or nothing left inside the border.
    """
    a, b = _cropped_lumas(sr, hr, border, least=1)
    error = float(np.mean((a - b) ** 2))
    return 10 * math.log10(PEAK**2 / error) if error else math.inf


def _windowed_mean(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean over every whole 11x11 window: (..., H, W) -> (..., H - 10, W - 10)."""
    offset = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    gauss = np.exp(-(offset**2) / (2 * SSIM_SIGMA**2))
    gauss /= gauss.sum()
    for _ in range(2):  # one axis, then the other
        count = maps.shape[-1] - SSIM_WINDOW + 1
        maps = sum(g * maps[..., k : k + count] for k, g in enumerate(gauss)).swapaxes(-1, -2)
    return maps


def ssim_y(sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> float:
    """Structural similarity of the lumas (Wang et al. 2004), 1 for equal images.

    Gaussian windows of 11x11 with sigma 1.5, whole windows only; K1 = 0.01, K2 = 0.03, L = 255.

    Args:
        sr: the image to judge, uint8 RGB (H, W, 3).
        hr: the truth, of the same size.
        border: pixels left out on each side.

    Raises:
        UsageError: for another type, sizes that differ, or no whole window inside the border.
    """
    a, b = _cropped_lumas(sr, hr, border, least=SSIM_WINDOW)
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = _windowed_mean(
        np.stack([a, b, a * a, b * b, a * b])
    )
    var_a = mean_aa - mean_a**2
    var_b = mean_bb - mean_b**2
    cov = mean_ab - mean_a * mean_b
    ssim = ((2 * mean_a * mean_b + SSIM_C1) * (2 * cov + SSIM_C2)) / (
        (mean_a**2 + mean_b**2 + SSIM_C1) * (var_a + var_b + SSIM_C2)
    )
    return float(ssim.mean())
