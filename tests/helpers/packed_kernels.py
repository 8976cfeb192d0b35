"""MambaMixer and Conv3x3 on numpy arrays, through the C interface of the CPU kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from dvmsr.kernels import cpu

MIXER_WEIGHTS = frozenset(name for name, _ in cpu.MixerWeights._fields_)


class Mixer:
    """A packed mixer. Outputs start as NaN, so that what is not written shows."""

    def __init__(self, handle: object, inputs: Mapping[str, np.ndarray]) -> None:
        self._handle = handle
        self._inner, self._state = inputs["A"].shape
        self._out_channels = inputs.get("out_proj", inputs["A"].T).shape[1]

    def __call__(
        self, inputs: Mapping[str, np.ndarray], threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """y (B, L, E), new_tail (B, K-1, D) and h_last (B, D, N) from x, tail and h0."""
        x, tail, h0 = (np.ascontiguousarray(inputs[name]) for name in ("x", "tail", "h0"))
        y = np.full((*x.shape[:2], self._out_channels), np.nan, x.dtype)
        new_tail, h_last = np.full_like(tail, np.nan), np.full_like(h0, np.nan)
        cpu.call(
            "mamba_mixer_forward",
            self._handle,
            cpu.MixerInputs(*x.shape[:2], x.ctypes.data, tail.ctypes.data, h0.ctypes.data),
            cpu.MixerOutputs(y.ctypes.data, new_tail.ctypes.data, h_last.ctypes.data),
            threads=threads,
        )
        return y, new_tail, h_last


@contextmanager
def packed_mixer(inputs: Mapping[str, np.ndarray], epsilon: float) -> Iterator[Mixer]:
    """The mixer with the weights among the inputs; the arrays that were packed hold NaN by then."""
    weights = {k: np.array(v, order="C") for k, v in inputs.items() if k in MIXER_WEIGHTS}
    x, (inner, width) = inputs["x"], weights["conv1d_weight"].shape
    described = cpu.MixerWeights(
        dtype=cpu.DTYPES[str(x.dtype)],
        epsilon=epsilon,
        channels=x.shape[2],
        inner=inner,
        state=weights["A"].shape[1],
        rank=weights["dt_proj"].shape[0],
        width=width,
        out_channels=weights["out_proj"].shape[1] if "out_proj" in weights else inner,
        **{name: weight.ctypes.data for name, weight in weights.items()},
    )
    with cpu.packed("mixer", described) as handle:
        for weight in weights.values():
            weight.fill(np.nan)
        yield Mixer(handle, inputs)


class Conv3x3:
    """A packed convolution. Outputs start as NaN."""

    def __init__(self, handle: object, out_channels: int) -> None:
        self._handle, self._out_channels = handle, out_channels

    def __call__(
        self, x: np.ndarray, pads: tuple[int, int, int, int], threads: int = 1, above: int = 0
    ) -> np.ndarray:
        """y (B, H', W', E) from x (B, H, W, C) and the rows and columns of zeros around it; the
        first `above` rows of x are given in an array of their own."""
        batch, height, width, _ = x.shape
        top, left, bottom, right = pads
        y = np.full(
            (batch, top + height + bottom - 2, left + width + right - 2, self._out_channels),
            np.nan,
            x.dtype,
        )
        before, rest = np.array(x[:, :above], order="C"), np.array(x[:, above:], order="C")
        sizes = batch, height - above, width, *pads, above
        described = cpu.Conv3x3Inputs(*sizes, rest.ctypes.data, before.ctypes.data)
        cpu.call("conv3x3_forward", self._handle, described, y.ctypes.data, threads=threads)
        return y


@contextmanager
def packed_conv3x3(weight: np.ndarray, bias: np.ndarray) -> Iterator[Conv3x3]:
    """The convolution with these weights (E, C, 3, 3), copies of which hold NaN by then."""
    weight, bias = weight.copy(), bias.copy()
    described = cpu.Conv3x3Weights(
        dtype=cpu.DTYPES[str(weight.dtype)],
        channels=weight.shape[1],
        out_channels=weight.shape[0],
        weight=weight.ctypes.data,
        bias=bias.ctypes.data,
    )
    with cpu.packed("conv3x3", described) as handle:
        weight.fill(np.nan)
        bias.fill(np.nan)
        yield Conv3x3(handle, len(bias))
