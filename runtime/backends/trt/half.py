"""FP32 arrays as the words that a GPU reads as FP32, FP16 or BF16, and back; numpy has no BF16."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def narrowed(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The values in that type, 16-bit ones as their bits; rounded to nearest, ties to even."""
    if dtype == "float32":
        return np.ascontiguousarray(values, np.float32)
    if dtype == "float16":
        return np.ascontiguousarray(values, np.float16).view(np.uint16)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(words: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Back to a FP32 array of its own."""
    if dtype == "float32":
        return words.copy()
    if dtype == "float16":
        return words.view(np.float16).astype(np.float32)
    return (words.astype(np.uint32) << 16).view(np.float32)
