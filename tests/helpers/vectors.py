"""The operators' shared test vectors and their FP64 truth, in numpy alone.

Every implementation (PyTorch, C++, ONNX Runtime, ONNX bodies, CUDA) is held to `scan_truth` and
`conv_truth`: the recurrences as the README states them, walked token by token in FP64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SCAN_INPUTS = ("u", "delta", "A", "B", "C", "D", "delta_bias", "h0", "z")
"""In the operators' order; z may be left off."""
CONV_INPUTS = ("x", "weight", "bias", "tail")
PER_TOKEN = frozenset({"u", "delta", "B", "C", "z"})
"""The inputs of a scan that have a token axis."""
HALF_INPUTS = frozenset({"u", "delta", "B", "C", "z", "x", "tail"})
"""What is half precision in an FP16 call; everything else stays FP32."""

TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3}
"""Largest error relative to the largest magnitude of the output, by activation type."""


@dataclass(frozen=True)
class ScanCase:
    """B, L, D, N, how extreme the inputs are, G, and the form: with z or without, whether softplus
    is applied to delta, and whether tokens come last in u, delta, B, C, z and y."""

    batch: int
    length: int
    channels: int
    state: int
    kind: str = "usual"
    groups: int = 1
    gate: bool = True
    softplus: bool = True
    channel_major: bool = False

    def __str__(self) -> str:
        form = ("" if self.gate else "-no_gate") + ("" if self.softplus else "-no_softplus")
        form += "-channel_major" if self.channel_major else ""
        groups = f"-G{self.groups}" if self.groups != 1 else ""
        sizes = f"B{self.batch}-L{self.length}-D{self.channels}-N{self.state}"
        return f"{sizes}{groups}-{self.kind}{form}"


@dataclass(frozen=True)
class ConvCase:
    """B, L, D, K, and whether SiLU is applied to the sum."""

    batch: int
    length: int
    channels: int
    width: int
    activation: bool = True

    def __str__(self) -> str:
        form = "" if self.activation else "-no_activation"
        return f"B{self.batch}-L{self.length}-D{self.channels}-K{self.width}{form}"


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
    ScanCase(2, 7, 6, 3, groups=2),
    ScanCase(1, 0, 4, 16, groups=4, gate=False),
    ScanCase(1, 33, 10, 8, groups=2, gate=False),
    ScanCase(2, 65, 96, 16, groups=4),
    ScanCase(1, 70, 260, 16, groups=2, gate=False),
    ScanCase(1, 1100, 80, 1, groups=4, gate=False),
    ScanCase(2, 40, 12, 2, groups=4, gate=False),
    ScanCase(1, 30, 6, 64, groups=2),
    ScanCase(1, 20, 7, 256),
    ScanCase(1, 20, 8, 256, groups=4, gate=False),
    ScanCase(1, 1100, 24, 8, softplus=False),
    ScanCase(2, 40, 20, 16, groups=2, gate=False, softplus=False),
    ScanCase(1, 3000, 20, 16, "slow decay", groups=4, gate=False),
]
CHANNEL_MAJOR_CASES = [
    dataclasses.replace(case, channel_major=True)
    for case in (
        ScanCase(1, 1, 1, 1),
        ScanCase(1, 0, 4, 16),
        ScanCase(2, 0, 4, 3, groups=2, gate=False),
        ScanCase(2, 7, 5, 3),
        ScanCase(3, 17, 17, 16),
        ScanCase(1, 63, 32, 16),
        ScanCase(1, 64, 33, 16, gate=False),
        ScanCase(2, 65, 120, 16),
        ScanCase(1, 300, 20, 16, "fast decay"),
        ScanCase(1, 64, 9, 16, "large delta"),
        ScanCase(1, 33, 10, 8, groups=2, gate=False),
        ScanCase(1, 70, 260, 16, groups=2, gate=False),
        ScanCase(1, 1100, 80, 1, groups=4, gate=False),
        ScanCase(2, 40, 12, 2, groups=4, gate=False),
        ScanCase(1, 30, 6, 64, groups=2),
        ScanCase(1, 20, 7, 256),
        ScanCase(1, 1100, 24, 8, softplus=False),
        ScanCase(2, 40, 20, 16, groups=2, gate=False, softplus=False),
        ScanCase(1, 3000, 20, 16, "slow decay", groups=4, gate=False),
        ScanCase(2, 3000, 24, 16, "slow decay"),
    )
]
"""For what reads channel-major tensors, too."""
CONV_CASES = [
    ConvCase(1, 1, 1, 1),
    ConvCase(1, 0, 5, 4),
    ConvCase(1, 1, 3, 4),
    ConvCase(2, 2, 7, 4),
    ConvCase(2, 33, 120, 4),
    ConvCase(1, 20, 17, 2),
    ConvCase(3, 9, 16, 7),
    ConvCase(1, 700, 24, 4),
    ConvCase(2, 33, 120, 4, activation=False),
    ConvCase(3, 9, 17, 3, activation=False),
]


def scan_inputs(case: ScanCase, seed: int = 0) -> dict[str, np.ndarray]:
    """FP64 inputs by name, in the operator's order, without z where the case has no gate.

    Decays reach from A = -1e4 (fast) to -1e-3 (slow). Without softplus delta is a step itself; now
    and then the bias makes it slightly negative.
    """
    batch, length, channels, state = case.batch, case.length, case.channels, case.state
    rng = np.random.default_rng([seed, batch, length, channels, state, case.groups])
    low, high = {"fast decay": (2, 4), "slow decay": (-3, -2)}.get(case.kind, (-2, 1.5))
    shift = {"large delta": 8.0, "tiny delta": -12.0}.get(case.kind, -2.0)
    normal = rng.standard_normal
    inputs = {
        "u": normal((batch, length, channels)),
        "delta": normal((batch, length, channels)),
        "A": -(10.0 ** rng.uniform(low, high, (channels, state))),
        "B": normal((batch, length, case.groups, state)),
        "C": normal((batch, length, case.groups, state)),
        "D": normal(channels),
        "delta_bias": shift + normal(channels),
        "h0": normal((batch, channels, state)),
        "z": 2 * normal((batch, length, channels)),
    }
    if not case.softplus:
        inputs["delta"] = np.logaddexp(0, inputs["delta"] + shift)
        inputs["delta_bias"] = rng.uniform(-0.05, 0.05, channels)
    if not case.gate:
        del inputs["z"]
    return channels_first(inputs) if case.channel_major else inputs


def channels_first(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """u, delta and z (B, L, D) as (B, D, L), B and C (B, L, G, N) as (B, G, N, L)."""
    return {
        name: np.ascontiguousarray(np.moveaxis(value, 1, -1)) if name in PER_TOKEN else value
        for name, value in inputs.items()
    }


def tokens_first(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The way back."""
    return {
        name: np.ascontiguousarray(np.moveaxis(value, -1, 1)) if name in PER_TOKEN else value
        for name, value in inputs.items()
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
    inputs: dict[str, np.ndarray],
    softplus: bool = True,
    channel_major: bool = False,
    off: Callable[[np.ndarray], np.ndarray] = lambda decays: decays,
) -> tuple[np.ndarray, np.ndarray]:
    """y (B, L, D), or (B, D, L), and h_last (B, D, N) in FP64, from inputs of any type; no gate
    without z.

    `off`: what becomes of every token's decays (B, D, N), to see what an error in them does.
    """
    if channel_major:
        y, h_last = scan_truth(tokens_first(inputs), softplus, off=off)
        return y.transpose(0, 2, 1), h_last
    wide = {name: value.astype(np.float64) for name, value in inputs.items()}
    u, A, D, h = (wide[name] for name in ("u", "A", "D", "h0"))
    of_channel = np.arange(u.shape[2]) // (u.shape[2] // wide["B"].shape[2])  # its group
    y = np.empty_like(u)
    step = wide["delta"] + wide["delta_bias"]
    if softplus:
        step = np.logaddexp(0, step)
    gate = _silu(wide["z"]) if "z" in wide else np.ones_like(u)
    for t in range(u.shape[1]):
        d = step[:, t, :, None]
        h = off(np.exp(d * A)) * h + d * u[:, t, :, None] * wide["B"][:, t, of_channel]
        y[:, t] = ((h * wide["C"][:, t, of_channel]).sum(-1) + D * u[:, t]) * gate[:, t]
    return y, h


def conv_truth(
    inputs: dict[str, np.ndarray], activation: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """y (B, L, D) and the new tail (B, K-1, D) in FP64, from inputs of any type."""
    x, weight, bias, tail = (inputs[k].astype(np.float64) for k in CONV_INPUTS)
    width = weight.shape[1]
    padded = np.concatenate([tail, x], 1)
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        y[:, t] = bias + (padded[:, t : t + width] * weight.T).sum(1)
    return _silu(y) if activation else y, padded[:, x.shape[1] :]


def error(actual: np.ndarray, truth: np.ndarray) -> float:
    """Largest deviation relative to the largest magnitude of the truth; infinite for a NaN."""
    if truth.size == 0:
        return 0.0
    deviation = np.abs(actual.astype(np.float64) - truth).max() / max(np.abs(truth).max(), 1e-30)
    return float(deviation) if np.isfinite(deviation) else float("inf")
