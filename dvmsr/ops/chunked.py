"""The two operators in standard PyTorch, for devices without kernels of their own.

The scan walks chunks of tokens; inside a chunk it is a parallel prefix scan in log2(chunk) steps
(Hillis and Steele 1986). Only one chunk's (B, chunk, D, N) tensors exist at a time, in the backward
pass too: each chunk is recomputed from the state at its start.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 128


def _scan_chunk(
    u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    decay = torch.exp(step.unsqueeze(-1) * A)  # (B, T, D, N)
    state = (step * u).unsqueeze(-1) * B.unsqueeze(2)  # (B, T, D, N)
    state = torch.cat([(state[:, :1] + decay[:, :1] * h.unsqueeze(1)), state[:, 1:]], 1)
    reach = 1
    while reach < u.shape[1]:
        joined = state[:, reach:] + decay[:, reach:] * state[:, :-reach]
        state = torch.cat([state[:, :reach], joined], 1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], 1)
        reach *= 2
    return torch.einsum("btdn,btn->btd", state, C), state[:, -1]


def selective_scan_chunked(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    h0: Tensor,
) -> tuple[Tensor, Tensor]:
    """Shapes and meaning as `dvmsr.ops.reference.selective_scan_reference`."""
    work = A.dtype
    x = u.to(work)
    step = F.softplus(delta.to(work) + delta_bias)
    h, outputs = h0, []
    for t in range(0, u.shape[1], CHUNK):
        part = slice(t, t + CHUNK)
        y, h = checkpoint(
            _scan_chunk,
            x[:, part],
            step[:, part],
            A,
            B[:, part].to(work),
            C[:, part].to(work),
            h,
            use_reentrant=False,
        )
        outputs.append(y)
    y = torch.cat(outputs, 1) if outputs else torch.zeros_like(x)
    return ((y + D * x) * F.silu(z.to(work))).to(u.dtype), h


def causal_conv1d_shifted(
    x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor
) -> tuple[Tensor, Tensor]:
    """Shapes and meaning as `dvmsr.ops.reference.causal_conv1d_reference`; the arithmetic is in
    the type of weight, whatever the type of x."""
    length = x.shape[1]
    padded = torch.cat([tail, x], 1)
    y = bias.expand(x.shape)
    for k, tap in enumerate(weight.unbind(1)):
        y = torch.addcmul(y, tap, padded[:, k : k + length].to(weight.dtype))
    return F.silu(y).to(x.dtype), padded[:, length:]
