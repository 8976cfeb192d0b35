"""The two operators as differentiable PyTorch functions."""

from __future__ import annotations

from torch import Tensor

from dvmsr.ops.reference import causal_conv1d_reference, selective_scan_reference


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    h0: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if h0 is None:
        h0 = A.new_zeros(u.shape[0], *A.shape)
    return selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, h0)


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    if tail is None:
        tail = x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2])
    return causal_conv1d_reference(x, weight, bias, tail)
