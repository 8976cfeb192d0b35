"""Inputs for the scan as a network has them: drawn from what was captured of it while it enlarged a
photograph (`capture.py`, `scan_statistics.json`).

Where the scan's correction stops is decided, per channel, by the sum of delta since a chunk's start
times the smallest |A| of the channel; per warp, by the slowest of its 32 neighbouring channels; per
state, by that state's |A|. So these are kept of the real inputs, layer by layer:

* each channel's distribution of delta (seven quantiles), in the network's order of channels; *
each channel's smallest |A|, to two digits, beside that delta: their correlation, from -0.6 to
0.75
  over the layers, decides how many channels are slow;
* how much larger the other states' |A| are, by rank (three quantiles over the channels): a channel
  takes one position between these for all its ranks;
* the standard deviations of u, B and C.

Not kept: the order of delta in time (tokens are drawn one by one; the mean of delta over 496
tokens of the photograph differs from place to place by a few percent, in one layer by 20 %),
and which state has which rank. `capture.py` prints how much of a correction is left, for the
real inputs and for those drawn here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("scan_statistics.json")
DELTA_LEVELS = (0.0, 0.02, 0.1, 0.5, 0.9, 0.98, 1.0)
RATIO_LEVELS = (0.1, 0.5, 0.9)
SMALLEST_DELTA = 1e-9
"""Smaller ones count as this."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """What is kept of one layer's scan, D channels and N states."""

    delta: Array
    """Quantiles of delta, after bias and softplus, at `DELTA_LEVELS`: (D, 7)."""
    slowest: Array
    """The smallest |A| of each channel: (D)."""
    ratios: Array
    """Quantiles at `RATIO_LEVELS`, over the channels, of |A| over the smallest, by rank: (N, 3)."""
    u: float
    B: float
    C: float
    """Standard deviations."""


def statistics(
    delta: NDArray[Any], A: NDArray[Any], u: NDArray[Any], B: NDArray[Any], C: NDArray[Any]
) -> Layer:
    """Of one layer: delta after bias and softplus and u (L, D), A (D, N), B and C (L, N)."""
    rates = np.sort(np.abs(A.astype(np.float64)), axis=1)
    return Layer(
        np.quantile(delta.astype(np.float64), DELTA_LEVELS, axis=0).T,
        rates[:, 0],
        np.quantile(rates / rates[:, :1], RATIO_LEVELS, axis=0).T,
        *(float(values.std()) for values in (u, B, C)),
    )


def draw(layer: Layer, length: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Inputs of a scan, batch 1: delta and its bias are before softplus; h0 is zero."""
    rng = np.random.default_rng(seed)
    channels, state = len(layer.slowest), len(layer.ratios)
    places = rng.random((length, channels), np.float32)
    log_delta = np.log(np.maximum(layer.delta, SMALLEST_DELTA))
    delta = np.empty((length, channels), np.float32)
    for c in range(channels):
        delta[:, c] = np.exp(np.interp(places[:, c], DELTA_LEVELS, log_delta[c]))
    bias = _before_softplus(np.maximum(layer.delta[:, DELTA_LEVELS.index(0.5)], SMALLEST_DELTA))
    positions = rng.random(channels)
    ratios = [np.interp(positions, RATIO_LEVELS, layer.ratios[n]) for n in range(state)]
    A = -layer.slowest[:, None] * np.maximum(np.stack(ratios, 1), 1)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    return {
        "u": layer.u * normal(1, length, channels),
        "delta": (_before_softplus(delta) - bias.astype(np.float32))[None],
        "A": A.astype(np.float32),
        "B": layer.B * normal(1, length, 1, state),
        "C": layer.C * normal(1, length, 1, state),
        "D": normal(channels),
        "delta_bias": bias.astype(np.float32),
        "h0": np.zeros((1, channels, state), np.float32),
        "z": normal(1, length, channels),
    }


def _before_softplus(delta: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = delta + np.log(-np.expm1(-delta))
    return found


def load(path: Path = FILE) -> dict[str, list[Layer]]:
    """The layers of each network, `official` and `student`, in their order."""
    networks = json.loads(path.read_text())["networks"]
    return {
        name: [
            Layer(
                np.array(layer["delta"]), np.array(layer["slowest"]), np.array(layer["ratios"]),
                layer["u"], layer["B"], layer["C"],
            )
            for layer in network["layers"]
        ]
        for name, network in networks.items()
    }  # fmt: skip


def left(delta: NDArray[Any], A: NDArray[Any], tokens: int = 496) -> dict[str, float]:
    """How much of a correction over chunks of so many tokens is not below 2^-30: by channel and
    state, and where a warp of 32 channels goes on until its last has stopped.

    Args:
        delta: after bias and softplus, (L, D); A: (D, N).
    """
    chunks = len(delta) // tokens
    sums = delta[: chunks * tokens].reshape(chunks, tokens, -1).cumsum(1)
    rates = np.abs(A) * np.log2(np.e)
    pairs = [np.mean(sums * rates[:, n] < 30) for n in range(rates.shape[1])]
    slow = sums * rates.min(1) < 30
    warps = [slow[:, :, at : at + 32].any(-1).mean() for at in range(0, len(rates), 32)]
    return {"pairs": float(np.mean(pairs)), "warps": float(np.mean(warps))}
