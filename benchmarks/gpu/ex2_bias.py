"""The bias of the GPU's `ex2.approx` on exponents of slow decays, and what it does to a scan.

PTX promises 2 ulp. An error of one sign grows: a state that hardly decays is a product of
thousands of exponentials, each off in the same direction. What the bias, measured on the
device, does to given inputs is what an FP64 scan with so biased decays is off; it comes on top
of the tolerance for rounding, and no more than it does.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

ULP = 2.0**-24
"""Of results from 1/2 to 1, hence of exponents in [-1, 0)."""
EDGES = (-0.2, -0.1, -0.03, -0.01, -3e-3, -1e-3, -1e-4, -1e-5, 0.0)
"""Exponents (base 2) between which the bias is measured; below the first, decays forget within a
few tokens, and what they are off does not grow."""
SAMPLES = 1 << 18


def exponents(seed: int, count: int = SAMPLES) -> NDArray[np.float32]:
    """(bins, count), uniform within each bin."""
    rng = np.random.default_rng(seed)
    bins = itertools.pairwise(EDGES)
    return np.stack([rng.uniform(a, b, count) for a, b in bins]).astype(np.float32)


def deviation(given: NDArray[np.float32], found: NDArray[np.float32]) -> dict[str, float]:
    """Of exponentials from FP64's, in ulp: mean, its standard error, and largest magnitude."""
    off = (found.astype(np.float64) - np.exp2(given.astype(np.float64))) / ULP
    return {
        "mean_ulp": float(off.mean()),
        "standard_error_ulp": float(off.std() / np.sqrt(off.size)),
        "largest_ulp": float(np.abs(off).max()),
    }


def report(given: NDArray[np.float32], found: NDArray[np.float32]) -> dict[str, Any]:
    """(bins, count) exponents and what the device made of them, JSON-ready."""
    bins = [
        {"from": low, "to": high, **deviation(x, y)}
        for low, high, x, y in zip(EDGES, EDGES[1:], given, found, strict=False)
    ]
    worst = max(bins, key=lambda one: abs(one["mean_ulp"]))
    return {
        "what": "ex2.approx.ftz.f32 minus FP64, in ulp of 2^-24, uniform within each bin",
        "largest_mean_ulp": worst["mean_ulp"],
        "largest_ulp": max(one["largest_ulp"] for one in bins),
        "bins": bins,
    }


def biased(decays: NDArray[np.float64], measured: dict[str, Any]) -> NDArray[np.float64]:
    """exp(delta A), off by the mean that was measured for such exponents."""
    edges = [one["from"] for one in measured["bins"]]
    means = np.array([0.0, *(one["mean_ulp"] for one in measured["bins"]), 0.0])
    with np.errstate(divide="ignore"):
        exponent = np.log2(decays)
    bins = np.searchsorted(edges, exponent, side="right")  # 0: below the first
    bins[exponent >= 0] = len(means) - 1
    return decays + means[bins] * ULP
