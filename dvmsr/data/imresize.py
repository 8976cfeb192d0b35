"""Bicubic image resizing that agrees with MATLAB's `imresize`, the yardstick of super-resolution.

Every published PSNR starts from low-resolution images made by that function. Other bicubic
resizers differ: in the kernel (a = -0.5 here), in the antialiasing when shrinking, at the borders
(mirrored here) and in where they round.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import UsageError

KERNEL_WIDTH = 4


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic convolution kernel of Keys (1981) with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@lru_cache(maxsize=64)
def _taps(
    length: int, out_length: int, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Weights and source indices, both (P, out_length), of the P taps of each output sample."""
    stretch = min(scale, 1.0)  # below 1, the kernel widens: this is the antialiasing
    width = KERNEL_WIDTH / stretch
    centre = (np.arange(out_length) + 0.5) / scale - 0.5
    first = np.floor(centre - width / 2).astype(np.intp)
    index = first + np.arange(math.ceil(width) + 2)[:, None]
    weight = _cubic(stretch * (centre - index))
    weight /= weight.sum(axis=0)
    used = weight.any(axis=1)
    mirrored = index[used] % (2 * length)
    return weight[used], np.minimum(mirrored, 2 * length - 1 - mirrored)


def _resize_axis(image: NDArray, axis: int, out_length: int, scale: float) -> NDArray:
    """Resize one axis and store the result in the image's own type, rounding half up."""
    weights, indices = _taps(image.shape[axis], out_length, scale)
    source = np.moveaxis(image, axis, 0)
    column = (-1,) + (1,) * (image.ndim - 1)
    total = np.zeros((out_length, *source.shape[1:]))
    for weight, index in zip(weights, indices, strict=True):
        total += weight.reshape(column) * source[index]
    if image.dtype.kind == "u":
        total = np.clip(np.floor(total + 0.5), 0, np.iinfo(image.dtype).max)
    return np.moveaxis(total.astype(image.dtype), 0, axis)


def imresize(
    image: NDArray, scale: float | None = None, size: tuple[int, int] | None = None
) -> NDArray:
    """Resize as MATLAB's `imresize(image, scale)` or `imresize(image, size)` does (bicubic).

    The axis that shrinks most goes first, rows first on a tie, and integer images are rounded
    (half up) and clamped after each axis: only so are the results equal bit by bit.

    Args:
        image: (H, W) or (H, W, channels); uint8, uint16 or floating point.
        scale: factor for both axes; an output axis has ceil(scale * length) samples.
        size: (rows, columns) of the output, instead of `scale`.

    Returns:
        The resized image, of the type of `image`.

    Raises:
        UsageError: for an empty image, another type or rank, or not exactly one positive `scale`
            or `size`.
    """
    if image.ndim not in (2, 3) or image.size == 0:
        raise UsageError(f"imresize takes a non-empty HxW or HxWxC image, not {image.shape}")
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise UsageError(f"imresize takes uint8, uint16 or floating point, not {image.dtype}")
    if (scale is None) == (size is None):
        raise UsageError("imresize takes either scale or size")
    if scale is not None:
        if not (math.isfinite(scale) and scale > 0):
            raise UsageError(f"the scale must be positive, not {scale}")
        scales = (float(scale), float(scale))
        size = (math.ceil(scale * image.shape[0]), math.ceil(scale * image.shape[1]))
    else:
        assert size is not None
        if min(size) < 1:
            raise UsageError(f"the size must be positive, not {size}")
        scales = (size[0] / image.shape[0], size[1] / image.shape[1])
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        image = _resize_axis(image, axis, size[axis], scales[axis])
    return np.ascontiguousarray(image)
