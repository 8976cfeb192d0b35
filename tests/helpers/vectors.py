"""The operators' shared test vectors and their FP64 truth, in numpy alone.

Every implementation (PyTorch, C++, ONNX Runtime, ONNX bodies, CUDA) is held to `scan_truth` and
`conv_truth`: the recurrences as the README states them, walked token by token in FP64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SCAN_INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "h0")
CONV_INPUTS = ("x", "weight", "bias", "tail")
HALF_INPUTS = frozenset({"u", "delta", "B", "C", "z", "x", "tail"})
"""What is half precision in an FP16 call; everything else stays FP32."""

TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3}
"""Largest error relative to the largest magnitude of the output, by activation type."""


@dataclass(frozen=True)
class ScanCase:
    """B, L, D, N, and how extreme the inputs are."""

    batch: int
    length: int
    channels: int
    state: int
    kind: str = "usual"

    def __str__(self) -> str:
        return f"B{self.batch}-L{self.length}-D{self.channels}-N{self.state}-{self.kind}"


@dataclass(frozen=True)
class ConvCase:
    """B, L, D, K."""

    batch: int
    length: int
    channels: int
    width: int

    def __str__(self) -> str:
        return f"B{self.batch}-L{self.length}-D{self.channels}-K{self.width}"


SCAN_CASES = [
    ScanCase(1, 1, 1, 1),
    ScanCase(1, 0, 4, 16),
    ScanCase(2, 7, 5, 3),
    ScanCase(1, 15, 8, 16),
    ScanCase(1, 16, 16, 16),
    ScanCase(3, 17, 17, 16),
    ScanCase(1, 33, 33, 8),
    ScanCase(2, 65, 120, 16),
    ScanCase(1, 50, 3, 64),
    ScanCase(1, 3000, 24, 16),
    ScanCase(1, 300, 20, 16, "fast decay"),
    ScanCase(1, 3000, 20, 16, "slow decay"),
    ScanCase(1, 64, 9, 16, "large delta"),
    ScanCase(1, 64, 9, 16, "tiny delta"),
]
CONV_CASES = [
    ConvCase(1, 1, 1, 1),
    ConvCase(1, 0, 5, 4),
    ConvCase(1, 1, 3, 4),
    ConvCase(2, 2, 7, 4),
    ConvCase(2, 33, 120, 4),
    ConvCase(1, 20, 17, 2),
    ConvCase(3, 9, 16, 7),
    ConvCase(1, 700, 24, 4),
]


def scan_inputs(case: ScanCase, seed: int = 0) -> dict[str, np.ndarray]:
    """FP64 inputs by name. Decays reach from A = -1e4 (fast) to -1e-3 (slow)."""
    rng = np.random.default_rng([seed, case.batch, case.length, case.channels, case.state])
    batch, length, channels, state = case.batch, case.length, case.channels, case.state
    low, high = {"fast decay": (2, 4), "slow decay": (-3, -2)}.get(case.kind, (-2, 1.5))
    shift = {"large delta": 8.0, "tiny delta": -12.0}.get(case.kind, -2.0)
    normal = rng.standard_normal
    return {
        "u": normal((batch, length, channels)),
        "delta": normal((batch, length, channels)),
        "A": -(10.0 ** rng.uniform(low, high, (channels, state))),
        "B": normal((batch, length, state)),
        "C": normal((batch, length, state)),
        "D": normal(channels),
        "z": 2 * normal((batch, length, channels)),
        "delta_bias": shift + normal(channels),
        "h0": normal((batch, channels, state)),
    }


def conv_inputs(case: ConvCase, seed: int = 0) -> dict[str, np.ndarray]:
    """FP64 inputs by name."""
    rng = np.random.default_rng([seed, case.batch, case.length, case.channels, case.width])
    return {
        "x": rng.standard_normal((case.batch, case.length, case.channels)),
        "weight": rng.standard_normal((case.channels, case.width)),
        "bias": rng.standard_normal(case.channels),
        "tail": rng.standard_normal((case.batch, case.width - 1, case.channels)),
    }


def cast(inputs: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """The inputs as an operator of that activation type takes them."""
    wide = "float64" if dtype == "float64" else "float32"
    return {k: v.astype(dtype if k in HALF_INPUTS else wide) for k, v in inputs.items()}


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def scan_truth(
    inputs: dict[str, np.ndarray], off: Callable[[np.ndarray], np.ndarray] = lambda decays: decays
) -> tuple[np.ndarray, np.ndarray]:
    """y (B, L, D) and h_last (B, D, N) in FP64, from inputs of any type.

    `off`: what becomes of every token's decays (B, D, N), to see what an error in them does.
    """
    u, delta, A, B, C, D, z, bias, h = (inputs[k].astype(np.float64) for k in SCAN_INPUTS)
    y = np.empty_like(u)
    step = np.logaddexp(0, delta + bias)
    for t in range(u.shape[1]):
        d = step[:, t, :, None]
        h = off(np.exp(d * A)) * h + d * u[:, t, :, None] * B[:, t, None, :]
        y[:, t] = ((h * C[:, t, None, :]).sum(-1) + D * u[:, t]) * _silu(z[:, t])
    return y, h


def conv_truth(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """y (B, L, D) and the new tail (B, K-1, D) in FP64, from inputs of any type."""
    x, weight, bias, tail = (inputs[k].astype(np.float64) for k in CONV_INPUTS)
    width = weight.shape[1]
    padded = np.concatenate([tail, x], 1)
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        y[:, t] = bias + (padded[:, t : t + width] * weight.T).sum(1)
    return _silu(y), padded[:, x.shape[1] :]


def error(actual: np.ndarray, truth: np.ndarray) -> float:
    """Largest deviation relative to the largest magnitude of the truth; infinite for a NaN."""
    if truth.size == 0:
        return 0.0
    deviation = np.abs(actual.astype(np.float64) - truth).max() / max(np.abs(truth).max(), 1e-30)
    return float(deviation) if np.isfinite(deviation) else float("inf")
