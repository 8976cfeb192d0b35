"""The two operators in standard PyTorch, for devices without kernels of their own.

The scan walks chunks of tokens; inside a chunk it is a parallel prefix scan in log2(chunk) steps
(Hillis and Steele 1986). Only one chunk's (B, chunk, D, N) tensors exist at a time, in the backward
pass too: each chunk is recomputed from the state at its start.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dvmsr.ops.layout import tokens_first

CHUNK = 128


def _scan_chunk(
    u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    groups = B.shape[2]
    decay = torch.exp(step.unsqueeze(-1) * A)  # (B, T, D, N)
    drive = (step * u).unflatten(2, (groups, -1))  # (B, T, G, D/G)
    state = (drive.unsqueeze(-1) * B.unsqueeze(3)).flatten(2, 3)  # (B, T, D, N)
    state = torch.cat([(state[:, :1] + decay[:, :1] * h.unsqueeze(1)), state[:, 1:]], 1)
    reach = 1
    while reach < u.shape[1]:
        joined = state[:, reach:] + decay[:, reach:] * state[:, :-reach]
        state = torch.cat([state[:, :reach], joined], 1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], 1)
        reach *= 2
    # Not a matrix product, which autocast would halve.
    read = (state.unflatten(2, (groups, -1)) * C.unsqueeze(3)).sum(-1)  # (B, T, G, D/G)
    return read.flatten(2), state[:, -1].clone()


class _Scan(torch.autograd.Function):
    """y (B, L, D) before skip and gate, and the last state (B, D, N), from u, step, A, B, C, h0."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, h, starts = torch.empty_like(u), h0, []
        for t in range(0, u.shape[1], CHUNK):
            part = slice(t, t + CHUNK)
            starts.append(h)
            y[:, part], h = _scan_chunk(u[:, part], step[:, part], A, B[:, part], C[:, part], h)
        ctx.save_for_backward(u, step, A, B, C, *starts)
        return y, h.clone() if h is h0 else h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_grad: Tensor, h_grad: Tensor) -> tuple[Tensor, ...]:
        u, step, A, B, C, *starts = ctx.saved_tensors
        tokens = tuple(torch.empty_like(t) for t in (u, step, B, C))
        A_grad = torch.zeros_like(A)
        for i, h in reversed(list(enumerate(starts))):
            part = slice(i * CHUNK, (i + 1) * CHUNK)
            chunk = [t[:, part].detach() for t in (u, step)] + [A.detach()]
            chunk += [t[:, part].detach() for t in (B, C)] + [h.detach()]
            with torch.enable_grad():
                inputs = [t.requires_grad_() for t in chunk]
                outputs = _scan_chunk(*inputs)
            u_g, step_g, A_g, B_g, C_g, h_grad = torch.autograd.grad(
                outputs, inputs, (y_grad[:, part], h_grad)
            )
            for whole, piece in zip(tokens, (u_g, step_g, B_g, C_g), strict=True):
                whole[:, part] = piece
            A_grad += A_g
        return tokens[0], tokens[1], A_grad, tokens[2], tokens[3], h_grad


def selective_scan_chunked(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    h0: Tensor,
    z: Tensor | None = None,
    delta_softplus: bool = True,
    channel_major: bool = False,
) -> tuple[Tensor, Tensor]:
    """Shapes and meaning as `dvmsr.ops.reference.selective_scan_reference`."""
    if channel_major:
        u, delta, _, B, C = tokens_first((u, delta, A, B, C))
        z = None if z is None else z.mT
    work = A.dtype
    x = u.to(work)
    step = delta.to(work) + delta_bias
    if delta_softplus:
        step = F.softplus(step)
    y, h_last = _Scan.apply(x, step, A, B.to(work), C.to(work), h0)
    y = y + D * x
    y = (y if z is None else y * F.silu(z.to(work))).to(u.dtype)
    return y.mT if channel_major else y, h_last


def causal_conv1d_shifted(
    x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor, activation: bool = True
) -> tuple[Tensor, Tensor]:
    """Shapes and meaning as `dvmsr.ops.reference.causal_conv1d_reference`; the arithmetic is in
    the type of weight, whatever the type of x."""
    length = x.shape[1]
    padded = torch.cat([tail, x], 1)
    y = bias.expand(x.shape)
    for k, tap in enumerate(weight.unbind(1)):
        y = torch.addcmul(y, tap, padded[:, k : k + length].to(weight.dtype))
    return (F.silu(y) if activation else y).to(x.dtype), padded[:, length:]
