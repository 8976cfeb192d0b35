"""`mamba_ssm.ops.triton.layer_norm`: LayerNorm and RMSNorm with the addition of a residual before.

Statistics and arithmetic are FP32 (FP64 for FP64 inputs).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvmsr.compat.refusals import NotSupportedError


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """norm(rowscale * dropout(x) + dropout(x1) + residual) over the last dimension.

    Args:
        x, x1, residual: (..., D).
        weight, bias: (D).
        weight1, bias1: (D), of a second norm of the same sum.
        rowscale: (...).

    Returns:
        y (..., D) in the type of x; then that of the second norm if there is weight1; then with
        `prenorm` the sum itself, in the type of residual, or in FP32 with `residual_in_fp32` where
        there is no residual, else in that of x.

    Raises:
        NotSupportedError: with return_dropout_mask.
    """
    if return_dropout_mask:
        raise NotSupportedError("layer_norm_fn: return_dropout_mask is not supported")
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    total = x.to(work)
    if rowscale is not None:
        total = total * rowscale.unsqueeze(-1).to(work)
    if dropout_p:
        total = F.dropout(total, dropout_p)
    if x1 is not None:
        total = total + (F.dropout(x1.to(work), dropout_p) if dropout_p else x1.to(work))
    if residual is not None:
        total = total + residual.to(work)
        kept = residual.dtype
    else:
        kept = torch.float32 if residual_in_fp32 else x.dtype

    def norm(weight: Tensor, bias: Tensor | None) -> Tensor:
        weight, bias = weight.to(work), None if bias is None else bias.to(work)
        if not is_rms_norm:
            return F.layer_norm(total, weight.shape, weight, bias, eps).to(x.dtype)
        y = F.rms_norm(total, weight.shape, weight, eps)
        return (y if bias is None else y + bias).to(x.dtype)

    outputs = [norm(weight, bias)]
    if weight1 is not None:
        outputs.append(norm(weight1, bias1))
    if prenorm:
        outputs.append(total.to(kept))
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """As `layer_norm_fn`, without subtracting the mean."""
    return layer_norm_fn(
        x,
        weight,
        bias,
        residual,
        x1,
        weight1,
        bias1,
        eps,
        dropout_p,
        rowscale,
        prenorm,
        residual_in_fp32,
        True,
        return_dropout_mask,
    )


class RMSNorm(nn.Module):
    """RMSNorm with `weight` (D) and no bias; x and result (..., D)."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        dropout_p: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.drop = nn.Dropout(dropout_p) if dropout_p > 0.0 else None
        self.weight = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.bias: nn.Parameter | None
        self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """See `layer_norm_fn`."""
        return rms_norm_fn(
            x,
            self.weight,
            self.bias,
            residual=residual,
            eps=self.eps,
            dropout_p=self.drop.p if self.drop is not None and self.training else 0.0,
            prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
        )
