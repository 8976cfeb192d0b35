"""Convolution, projections and scan in one call: mamba-ssm's `mamba_inner_fn` and the forms that
Vim added, over one token-major function, which is what the `Mamba` module uses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dvmsr import ops
from dvmsr.compat.scan import parameters, refuse_complex, rows


def inner(
    x: Tensor,
    z: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
    A_b: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mamba (arXiv 2312.00752, Figure 3) between its outer projections, token-major.

    Args:
        x, z: the two halves of the input projection, (B, L, D).
        conv1d_weight: (D, 1, K).
        conv1d_bias, D, delta_bias: (D).
        x_proj_weight: (R + 2N, D), to R inputs of the delta projection, B and C.
        delta_proj_weight: (D, R).
        A: (D, N).
        B, C: (B, N, L) or (B, G, N, L), in place of those that x_proj_weight makes.
        B_proj_bias, C_proj_bias: (N), added to those.
        b_rms_weight, c_rms_weight: (N), and dt_rms_weight: (D): RMS norms of B, C and delta.
        A_b: (D, N), of a second scan over the tokens in reverse, which is added to the first.

    Returns:
        y (B, L, D) in the type of x, and the state after the last token, (B, D, N).
    """
    refuse_complex(A)
    x, _ = ops.causal_conv1d(x.contiguous(), conv1d_weight.squeeze(1), conv1d_bias)
    projected = F.linear(x, x_proj_weight)  # (B, L, R + 2N)
    rank, state = delta_proj_weight.shape[1], A.shape[-1]
    delta = F.linear(projected[..., :rank], delta_proj_weight)  # (B, L, D)
    b, c = projected[..., rank : rank + state], projected[..., -state:]
    if B_proj_bias is not None:
        b = b + B_proj_bias.to(b.dtype)
    if C_proj_bias is not None:
        c = c + C_proj_bias.to(c.dtype)
    B_rows = b.unsqueeze(2) if B is None else rows("B", B)  # (B, L, G, N)
    C_rows = c.unsqueeze(2) if C is None else rows("C", C)
    B_rows = _rms_norm(B_rows, b_rms_weight, b_c_dt_rms_eps)
    C_rows = _rms_norm(C_rows, c_rms_weight, b_c_dt_rms_eps)
    delta = _rms_norm(delta, dt_rms_weight, b_c_dt_rms_eps)
    A_wide, D, delta_bias = parameters(A, D, delta_bias, like=x)
    assert A_wide is not None
    y, h_last = ops.selective_scan(
        x, delta, A_wide, B_rows, C_rows, D, delta_bias, None, z, delta_softplus
    )
    if A_b is None:
        return y, h_last
    refuse_complex(A_b)
    (A_b,) = parameters(A_b, like=x)
    assert A_b is not None
    x, delta, B_rows, C_rows, z = (tensor.flip(1) for tensor in (x, delta, B_rows, C_rows, z))
    back, _ = ops.selective_scan(
        x, delta, A_b, B_rows, C_rows, D, delta_bias, None, z, delta_softplus
    )
    return y + back.flip(1), h_last


def _rms_norm(tensor: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        return tensor
    wide = tensor.double() if tensor.dtype == torch.float64 else tensor.float()
    return F.rms_norm(wide, weight.shape, weight.to(wide.dtype), eps).to(tensor.dtype)


def _halves(xz: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2D, L) to x and z, (B, L, D)."""
    x, z = xz.mT.chunk(2, -1)
    return x, z


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """xz (B, 2D, L) to (B, L, M); arguments as `inner`, out_proj_weight (M, D).

    Also `mamba_inner_ref`. checkpoint_lvl, how much mamba-ssm recomputes, changes nothing here.
    """
    y, _ = inner(
        *_halves(xz),
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        D,
        delta_bias,
        B_proj_bias,
        C_proj_bias,
        delta_softplus,
        b_rms_weight,
        c_rms_weight,
        dt_rms_weight,
        b_c_dt_rms_eps,
    )
    return F.linear(y, out_proj_weight, out_proj_bias)


def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
) -> Tensor:
    """xz (B, 2D, L) to (B, D, L), contiguous; arguments as `inner`."""
    y, _ = inner(
        *_halves(xz),
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        D,
        delta_bias,
        B_proj_bias,
        C_proj_bias,
        delta_softplus,
    )
    return y.mT.contiguous()


def bimamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
) -> Tensor:
    """As `mamba_inner_fn`, scanned in both directions, backwards with A_b; also
    `bimamba_inner_ref`."""
    y, _ = inner(
        *_halves(xz),
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        D,
        delta_bias,
        B_proj_bias,
        C_proj_bias,
        delta_softplus,
        A_b=A_b,
    )
    return F.linear(y, out_proj_weight, out_proj_bias)
