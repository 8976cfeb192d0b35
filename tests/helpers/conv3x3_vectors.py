"""Conv3x3's test vectors and their FP64 truth, in numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONV3X3_TOLERANCE = {"float32": 2e-6, "float16": 1e-3}
"""Largest error relative to the largest sum that the weights can make of such pixels."""

Pads = tuple[int, int, int, int]
"""Rows and columns of zeros at the top, left, bottom and right."""


@dataclass(frozen=True)
class Conv3x3Case:
    """B, H, W, C, E and the zeros around."""

    batch: int
    height: int
    width: int
    channels: int
    out_channels: int
    pads: Pads = (1, 1, 1, 1)

    def __str__(self) -> str:
        sizes = f"B{self.batch}-H{self.height}-W{self.width}-C{self.channels}-E{self.out_channels}"
        return f"{sizes}-pads{''.join(map(str, self.pads))}"


CONV3X3_CASES = [
    Conv3x3Case(1, 1, 1, 1, 1),
    Conv3x3Case(1, 3, 3, 1, 1, (0, 0, 0, 0)),
    Conv3x3Case(1, 2, 5, 4, 4, (0, 1, 0, 1)),
    Conv3x3Case(1, 5, 2, 4, 4, (1, 0, 1, 0)),
    Conv3x3Case(0, 5, 5, 4, 4),
    Conv3x3Case(2, 5, 7, 3, 60),
    Conv3x3Case(1, 12, 16, 60, 48),
    Conv3x3Case(1, 33, 70, 17, 33, (0, 1, 1, 1)),
    Conv3x3Case(1, 34, 18, 16, 16, (1, 1, 0, 1)),
    Conv3x3Case(1, 6, 6, 130, 5, (1, 0, 0, 1)),
]


def conv3x3_inputs(case: Conv3x3Case, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """x (B, H, W, C), weight (E, C, 3, 3) and bias (E)."""
    C, E = case.channels, case.out_channels
    rng = np.random.default_rng([seed, case.batch, case.height, case.width, C, E])
    inputs = {
        "x": rng.standard_normal((case.batch, case.height, case.width, C)),
        "weight": rng.standard_normal((E, C, 3, 3)) / np.sqrt(9 * C),
        "bias": rng.standard_normal(E),
    }
    return {name: value.astype(dtype) for name, value in inputs.items()}


def conv3x3_truth(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, pads: Pads) -> np.ndarray:
    """y (B, top + H + bottom - 2, left + W + right - 2, E) in FP64."""
    top, left, bottom, right = pads
    x, weight, bias = (value.astype(np.float64) for value in (x, weight, bias))
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    height, width = x.shape[1] - 2, x.shape[2] - 2
    y = np.zeros((len(x), height, width, len(bias))) + bias
    for i in range(3):
        for j in range(3):
            y += x[:, i : i + height, j : j + width] @ weight[:, :, i, j].T
    return y


def conv3x3_error(
    y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, pads: Pads
) -> float:
    """Largest deviation from the truth, relative to the largest |x| times the sum of the |weights|
    and the |bias| of the channel; infinite for a NaN."""
    if y.size == 0:
        return 0.0
    largest = np.abs(x.astype(np.float64)).max()
    sums = largest * np.abs(weight.astype(np.float64)).sum((1, 2, 3)) + np.abs(bias)
    worst = (np.abs(y - conv3x3_truth(x, weight, bias, pads)) / sums).max()
    return float(worst) if np.isfinite(worst) else float("inf")
