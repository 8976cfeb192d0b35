"""The operators' vectors as mamba-ssm's functions take them, and FP64 gradients to compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vectors import ScanCase, scan_inputs

from dvmsr.ops.reference import selective_scan_reference

SEQUENCES = ("u", "delta", "z")
ROWS = ("B", "C")
SCAN_ORDER = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def channel_major(inputs: dict[str, np.ndarray], flat: bool = False) -> dict[str, np.ndarray]:
    """u, delta and z (B, D, L); B and C (B, G, N, L), or (B, N, L) if flat; without h0."""
    moved = {name: value for name, value in inputs.items() if name != "h0"}
    for name in SEQUENCES:
        if name in moved:
            moved[name] = np.ascontiguousarray(moved[name].swapaxes(1, 2))
    for name in ROWS:
        rows = moved[name].transpose(0, 2, 3, 1)
        moved[name] = np.ascontiguousarray(rows[:, 0] if flat else rows)
    return moved


def zero_start(case: ScanCase, seed: int = 0) -> dict[str, np.ndarray]:
    """FP64 inputs whose h0 is zero, which is where mamba-ssm starts."""
    inputs = scan_inputs(case, seed)
    return {**inputs, "h0": np.zeros_like(inputs["h0"])}


def as_tensors(
    inputs: dict[str, np.ndarray], dtype: torch.dtype = torch.float64, grad: bool = False
) -> dict[str, Any]:
    return {k: torch.tensor(v, dtype=dtype, requires_grad=grad) for k, v in inputs.items()}


def true_gradients(
    inputs: dict[str, np.ndarray], softplus: bool, y_grad: np.ndarray, h_grad: np.ndarray
) -> dict[str, np.ndarray]:
    """Of (y y_grad).sum() + (h_last h_grad).sum(), through the sequential reference in FP64; token-
    major inputs, y_grad and result."""
    tensors = as_tensors(inputs, grad=True)
    y, h = selective_scan_reference(**tensors, delta_softplus=softplus)
    names = [name for name in tensors if name != "h0"]
    loss = (y * torch.tensor(y_grad)).sum() + (h * torch.tensor(h_grad)).sum()
    found = torch.autograd.grad(loss, [tensors[name] for name in names])
    return {name: value.numpy() for name, value in zip(names, found, strict=True)}
