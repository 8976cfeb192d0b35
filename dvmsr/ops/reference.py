"""The two operators, written down as plainly as possible: this is their specification.

Every other implementation (C++, ONNX body, CUDA) is held to these functions in FP64. They walk the
tokens one by one; use `dvmsr.ops.selective_scan` and `causal_conv1d` for work.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan_reference(
    u: Tensor,  # (B, L, D), or channel-major (B, D, L)
    delta: Tensor,  # as u, before bias and softplus
    A: Tensor,  # (D, N)
    B: Tensor,  # (B, L, G, N), or channel-major (B, G, N, L)
    C: Tensor,  # as B
    D: Tensor,  # (D)
    delta_bias: Tensor,  # (D)
    h0: Tensor,  # (B, D, N)
    z: Tensor | None = None,  # as u
    delta_softplus: bool = True,
    channel_major: bool = False,
) -> tuple[Tensor, Tensor]:
    """The selective scan of Mamba (arXiv 2312.00752, Algorithm 2; ZOH for A, Euler for B).

    Channel d uses group d // (D / G) of B and C. Without z there is no gate, without delta_softplus
    delta + delta_bias is the step itself.

    Returns:
        y as u, and the state after the last token (B, D, N) in the type of h0.
    """
    if channel_major:
        u, delta, z = u.mT, delta.mT, None if z is None else z.mT
        B, C = (rows.permute(0, 3, 1, 2) for rows in (B, C))
    step = (delta + delta_bias).to(A.dtype)  # (B, L, D)
    if delta_softplus:
        step = F.softplus(step)
    drive = step * u  # (B, L, D)
    per_group = u.shape[2] // B.shape[2]
    B, C = (rows.repeat_interleave(per_group, 2) for rows in (B, C))  # (B, L, D, N)
    h = h0
    outputs = []
    for t in range(u.shape[1]):
        decay = torch.exp(step[:, t, :, None] * A)  # (B, D, N)
        h = decay * h + drive[:, t, :, None] * B[:, t]  # (B, D, N)
        outputs.append((h * C[:, t]).sum(-1) + D * u[:, t])  # (B, D)
    y = torch.stack(outputs, 1) if outputs else torch.zeros_like(step)  # (B, L, D)
    y = (y if z is None else y * F.silu(z)).to(u.dtype)
    return y.mT if channel_major else y, h


def causal_conv1d_reference(
    x: Tensor,  # (B, L, D)
    weight: Tensor,  # (D, K)
    bias: Tensor,  # (D)
    tail: Tensor,  # (B, K-1, D): the tokens before the first
    activation: bool = True,
) -> tuple[Tensor, Tensor]:
    """Depthwise convolution over the last K tokens, then SiLU where `activation` asks for it.

    Returns:
        y (B, L, D), and the last K-1 tokens of tail and x together (B, K-1, D).
    """
    length, width = x.shape[1], weight.shape[1]
    padded = torch.cat([tail, x], 1)  # (B, K-1+L, D)
    y = bias.expand_as(x)
    for k in range(width):
        y = y + weight[:, k] * padded[:, k : k + length]
    return (F.silu(y) if activation else y).to(x.dtype), padded[:, length:]
