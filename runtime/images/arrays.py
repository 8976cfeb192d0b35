"""Between pictures as arrays of pixels and what networks take and give."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import UsageError


def check_values(image: NDArray[Any]) -> None:
    """Whether an image is of type uint8, uint16, or floating-point in [0, 1].

    Raises:
        UsageError: for another type or range.
    """
    if image.dtype in (np.uint8, np.uint16):
        return
    if not np.issubdtype(image.dtype, np.floating):
        raise UsageError(f"the image must be of type uint8, uint16 or float, not {image.dtype}")
    if not (image.min() >= 0 and image.max() <= 1):
        raise UsageError("the image's values must be numbers in [0, 1]; scale or clip them first")


def to_planes(image: NDArray[Any]) -> NDArray[np.float32]:
    """(H, W, 3) of type uint8, uint16, or floating-point in [0, 1] -> (1, 3, H, W) in [0, 1].

    Raises:
        UsageError: for another type or range.
    """
    check_values(image)
    unit = image.astype(np.float32)
    if image.dtype in (np.uint8, np.uint16):
        unit /= np.float32(np.iinfo(image.dtype).max)
    return np.ascontiguousarray(unit.transpose(2, 0, 1))[None]


def from_planes(planes: NDArray[np.float32], dtype: np.dtype[Any] | type) -> NDArray[Any]:
    """(1, 3, H, W) -> (H, W, 3) of that type, clipped to its range and rounded if it is integer."""
    dtype = np.dtype(dtype)
    unit = np.clip(planes[0].transpose(1, 2, 0), 0, 1)
    if np.issubdtype(dtype, np.floating):
        return np.ascontiguousarray(unit, dtype)
    unit *= np.iinfo(dtype).max
    return np.ascontiguousarray(np.rint(unit, out=unit), dtype)
