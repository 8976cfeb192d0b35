"""How far two networks' outputs are apart."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Difference:
    """How far one output is from another."""

    max_abs: float
    psnr: float
    """In dB, peak 1; infinite for equal outputs."""


def measure(output: NDArray[Any], truth: NDArray[Any]) -> Difference:
    """The difference of two arrays of one shape; outputs of two shapes are infinitely far apart."""
    if output.shape != truth.shape:
        return Difference(math.inf, -math.inf)
    difference = output.astype(np.float64) - truth
    mean_square = float(np.mean(difference**2))
    psnr = -10 * math.log10(mean_square) if mean_square else math.inf
    return Difference(float(np.abs(difference).max()), psnr)
