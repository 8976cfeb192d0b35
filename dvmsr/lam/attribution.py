"""Which pixels of the input a super-resolution network uses for a window of its result.

Local attribution maps after Gu and Dong, "Interpreting Super-Resolution Networks with Local
Attribution Maps" (CVPR 2021, arXiv 2011.11036). A detector F tells how much detail there is in the
window. Its gradient with respect to the input is integrated along a path of images from a blurred
one to the input itself:

    attribution = integral over a from 0 to 1 of  dF/dx(path(a)) * dpath/da,
    path(a)     = the input, blurred with a Gaussian of standard deviation (1 - a) * sigma.

Every pixel is so given its part in F(input) - F(blurred input), the sum over all pixels.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dvmsr.lam.window import Box

SIGMA = 1.2
"""Of the blurred input, in its pixels; with it the kernel has 9x9 taps."""
STEPS = 50
_REACH = 3
"""Taps of the kernel on either side, in standard deviations."""


def blur(image: Tensor, sigma: float, radius: int) -> Tensor:
    """Gaussian blur of each channel; beyond its border the image is mirrored.

    Args:
        image: (c, h, w).
        sigma: standard deviation in pixels; 0 changes nothing.
        radius: taps on either side of the middle one.

    Returns:
        (c, h, w) in the type of the image.
    """
    if not sigma:
        return image
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-((taps / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    for axis in (1, 2):
        mirrored = np.pad(np.arange(image.shape[axis]), radius, mode="reflect")
        extended = image.index_select(axis, torch.from_numpy(mirrored))
        image = extended.unfold(axis, len(taps), 1) @ kernel
    return image


def baseline(image: Tensor, sigma: float = SIGMA) -> Tensor:
    """Where the path begins: the blurred image, (c, h, w)."""
    return blur(image, sigma, math.ceil(_REACH * sigma))


def integrate(
    gradient: Callable[[Tensor], Tensor],
    image: Tensor,
    sigma: float = SIGMA,
    steps: int = STEPS,
    progress: Callable[[], None] = lambda: None,
) -> Tensor:
    """The gradient integrated along the path from `baseline(image, sigma)` to the image.

    By the midpoint rule; one image of the path exists at a time.

    Args:
        gradient: of the detector at an image (c, h, w), of that shape.
        image: (c, h, w).
        steps: into which the path is divided, evenly in the standard deviation of the blur.
        progress: called after each step.

    Returns:
        Signed attributions in FP64, (c, h, w).
    """
    radius = math.ceil(_REACH * sigma)
    total = torch.zeros(image.shape, dtype=torch.float64)
    before = blur(image, sigma, radius)
    for step in range(steps):
        middle = blur(image, sigma * (1 - (step + 0.5) / steps), radius)
        after = blur(image, sigma * (1 - (step + 1) / steps), radius)
        total += gradient(middle) * (after - before)
        before = after
        progress()
    return total


def edge_strength(sr: Tensor, window: Box) -> Tensor:
    """The detector: how much detail there is in a window.

    Args:
        sr: (b, c, h, w).

    Returns:
        The sum over the window's pixels and channels of sqrt(dx^2 + dy^2), the differences to the
        next pixel of the row and of the column; 0 beyond the image's border.
    """
    x, y, width, height = window.x, window.y, window.width, window.height
    cut = sr[..., y : y + height + 1, x : x + width + 1]
    missing = (0, width + 1 - cut.shape[-1], 0, height + 1 - cut.shape[-2])
    cut = F.pad(cut, missing, mode="replicate")
    here = cut[..., :-1, :-1]
    differences = torch.stack((cut[..., :-1, 1:] - here, cut[..., 1:, :-1] - here))
    return torch.linalg.vector_norm(differences, dim=0).sum()  # with gradient 0 where it is 0


def attribution_map(attributions: Tensor) -> NDArray[np.float64]:
    """How much each pixel counts: channels added, the sign left out. (c, h, w) -> (h, w)"""
    result: NDArray[np.float64] = attributions.sum(0).abs().numpy()
    return result


def gini(values: NDArray[np.float64]) -> float:
    """Gini coefficient of n values, none of them negative: 0 if all are equal, 1 - 1/n if all but
    one are zero.

    Sum over all pairs |v_i - v_j| / (2 n^2 mean), computed by sorting.

    Raises:
        ValueError: if all are zero.
    """
    ordered = np.sort(values, axis=None)
    n, total = ordered.size, ordered.sum()
    if not total:
        raise ValueError("all values are zero")
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(weights @ ordered / (n * total))


def diffusion_index(attribution: NDArray[np.float64]) -> float:
    """(1 - Gini) * 100 of an attribution map: the higher, the more pixels take part."""
    return 100 * (1 - gini(attribution))
