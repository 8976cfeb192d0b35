"""MambaMixer's test vectors and their FP64 truth, in numpy alone, made of those of its parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from vectors import conv_truth, scan_truth

MIXER_INPUTS = (
    *("x", "in_proj_x", "in_proj_z", "conv1d_weight", "conv1d_bias", "x_proj_dt", "x_proj_B"),
    *("x_proj_C", "dt_proj", "A", "D", "delta_bias", "out_proj", "tail", "h0"),
    *("norm_weight", "norm_bias"),
)
"""In the operator's order."""
MIXER_OUTPUTS = ("y", "new_tail", "h_last")
MIXER_FP32 = frozenset({"conv1d_weight", "conv1d_bias", "A", "D", "delta_bias", "h0"})
"""What is FP32 in an FP16 call, too."""
EPSILON = 1e-3
"""Other than by default."""
MIXER_TOLERANCE = {"float32": 1e-5, "float16": 1e-2}
"""Largest error relative to the largest magnitude of the output; in half precision the values
between the parts are rounded, too."""


@dataclass(frozen=True)
class MixerCase:
    """B, L, D, N, R, K, C and E, and whether there are a norm and projections before and after."""

    batch: int
    length: int
    inner: int
    state: int
    rank: int = 2
    width: int = 4
    channels: int = 6
    out_channels: int = 5
    norm: bool = True
    in_proj: bool = True
    out_proj: bool = True

    def __str__(self) -> str:
        sizes = f"B{self.batch}-L{self.length}-D{self.inner}-N{self.state}-K{self.width}"
        lacks = (name for name in ("norm", "in_proj", "out_proj") if not getattr(self, name))
        return "-no_".join((sizes, *lacks))


MIXER_CASES = [
    MixerCase(1, 1, 1, 1, 1, 1, 1, 1),
    MixerCase(1, 0, 4, 16),
    MixerCase(2, 7, 5, 3),
    MixerCase(1, 2, 8, 16),
    MixerCase(3, 17, 17, 16, width=3),
    MixerCase(2, 33, 120, 16, 4, 4, 60, 60),
    MixerCase(2, 20, 24, 16, norm=False),
    MixerCase(1, 21, 24, 16, norm=False, in_proj=False),
    MixerCase(2, 22, 16, 8, in_proj=False),
    MixerCase(1, 23, 24, 16, norm=False, in_proj=False, out_proj=False),
    MixerCase(1, 24, 12, 4, out_proj=False),
    MixerCase(1, 700, 32, 16, 2, 4, 16, 16),
]


def mixer_inputs(case: MixerCase, dtype: str = "float64", seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs by name, the absent ones left out, as a call of that activation type takes them."""
    B, L, C, E = case.batch, case.length, case.channels, case.out_channels
    D, N, R, K = case.inner, case.state, case.rank, case.width
    rng = np.random.default_rng([seed, B, L, C, D, N, R, K])

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.standard_normal((rows, columns)) / np.sqrt(rows)

    made = {
        "x": rng.standard_normal((B, L, C if case.in_proj else 2 * D)),
        "conv1d_weight": matrix(K, D).T,
        "conv1d_bias": rng.standard_normal(D),
        "x_proj_dt": matrix(D, R),
        "x_proj_B": matrix(D, N),
        "x_proj_C": matrix(D, N),
        "dt_proj": matrix(R, D),
        "A": -(10.0 ** rng.uniform(-2, 1.5, (D, N))),
        "D": rng.standard_normal(D),
        "delta_bias": rng.standard_normal(D) - 2,
        "tail": rng.standard_normal((B, K - 1, D)),
        "h0": rng.standard_normal((B, D, N)),
    }
    if case.in_proj:
        made |= {"in_proj_x": matrix(C, D), "in_proj_z": matrix(C, D)}
    if case.out_proj:
        made["out_proj"] = matrix(D, E)
    if case.norm:
        size = made["x"].shape[2]
        made |= {"norm_weight": rng.uniform(0.5, 2, size), "norm_bias": rng.standard_normal(size)}
    wide = "float64" if dtype == "float64" else "float32"
    return {
        name: made[name].astype(wide if name in MIXER_FP32 else dtype)
        for name in MIXER_INPUTS
        if name in made
    }


def mixer_truth(
    inputs: dict[str, np.ndarray], epsilon: float = EPSILON
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y (B, L, E), new_tail (B, K-1, D) and h_last (B, D, N) in FP64, from inputs of any type."""
    wide = {name: value.astype(np.float64) for name, value in inputs.items()}
    x = wide["x"]
    if "norm_weight" in wide:
        off = x - x.mean(-1, keepdims=True)
        size = np.sqrt(np.square(off).mean(-1, keepdims=True) + epsilon)
        x = off / size * wide["norm_weight"] + wide["norm_bias"]
    if "in_proj_x" in wide:
        x, z = x @ wide["in_proj_x"], x @ wide["in_proj_z"]
    else:
        x, z = np.split(x, 2, -1)
    taps = {"weight": wide["conv1d_weight"], "bias": wide["conv1d_bias"], "tail": wide["tail"]}
    u, new_tail = conv_truth({"x": x, **taps})
    scan = {
        "u": u,
        "delta": u @ wide["x_proj_dt"] @ wide["dt_proj"],
        "B": (u @ wide["x_proj_B"])[:, :, None],
        "C": (u @ wide["x_proj_C"])[:, :, None],
        "z": z,
    }
    y, h_last = scan_truth(
        {**scan, **{name: wide[name] for name in ("A", "D", "delta_bias", "h0")}}
    )
    return (y @ wide["out_proj"] if "out_proj" in wide else y), new_tail, h_last
