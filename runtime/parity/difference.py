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


@dataclass(frozen=True)
class ArrayDifference:
    """How far one array of any range is from another."""

    max_abs: float
    relative: float
    """To the largest finite magnitude in the other."""


def measure_arrays(output: NDArray[Any], truth: NDArray[Any]) -> ArrayDifference:
    """The difference of two arrays of one shape, of numbers or truth values. What is not finite is
    equal where it is the same in both, and else infinitely far apart."""
    if not truth.size:
        return ArrayDifference(0.0, 0.0)
    wide, true = output.astype(np.float64), truth.astype(np.float64)
    same = (wide == true) | (np.isnan(wide) & np.isnan(true))
    with np.errstate(invalid="ignore"):
        off = float(np.abs(np.where(same, 0.0, wide - true)).max())
    if not math.isfinite(off):
        return ArrayDifference(math.inf, math.inf)
    largest = float(np.abs(true[np.isfinite(true)]).max(initial=0.0))
    return ArrayDifference(off, off / max(largest, 1e-30))


def measure(output: NDArray[Any], truth: NDArray[Any]) -> Difference:
    """The difference of two arrays of one shape; outputs of two shapes are infinitely far apart."""
    if output.shape != truth.shape:
        return Difference(math.inf, -math.inf)
    difference = output.astype(np.float64) - truth
    mean_square = float(np.mean(difference**2))
    psnr = -10 * math.log10(mean_square) if mean_square else math.inf
    return Difference(float(np.abs(difference).max()), psnr)
