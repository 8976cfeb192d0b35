"""The compiled modules that networks call from autograd Functions of their own: `fwd` and `bwd` of
mamba-ssm's `selective_scan_cuda` and VMamba's `selective_scan_cuda_core`, `_oflex`, `_nrow` and
`_ndstate`.

All are channel-major. `fwd` returns y (B, D, L), then x (B, D, 1, 2N), of which x[..., 1::2] is the
last state and the rest zeros, then, with a gate, the gated y. `bwd` computes from the inputs alone
and returns the gradients of u, delta, A, B, C, D and delta_bias, None for those that are None, then
what the form has besides.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dvmsr.compat.scan import scan

Optional = Tensor | None


def _intermediates(h_last: Tensor) -> Tensor:
    """The last state (B, D, N) where mamba-ssm keeps it."""
    return torch.stack([torch.zeros_like(h_last), h_last], -1).flatten(2).unsqueeze(2)


def _gradients(
    inputs: Sequence[Optional], dout: Tensor, delta_softplus: bool
) -> tuple[list[Optional], Tensor]:
    """Gradients of u, delta, A, B, C, D, z and delta_bias, and y."""
    with torch.enable_grad():
        own = [t if t is None else t.detach().requires_grad_() for t in inputs]
        u, delta, A, B, C, D, z, delta_bias = own
        assert u is not None
        assert delta is not None
        assert A is not None
        assert B is not None
        assert C is not None
        y, _ = scan(u, _per_channel(delta, u), A, B, C, D, z, _bias(delta_bias, u), delta_softplus)
        found = torch.autograd.grad(y, [t for t in own if t is not None], dout.to(y.dtype))
    left = iter(found)
    return [None if t is None else next(left) for t in own], y.detach()


def _per_channel(delta: Tensor, u: Tensor) -> Tensor:
    """delta may have one row for several channels of u."""
    repeats = u.shape[1] // delta.shape[1]
    return delta if repeats == 1 else delta.repeat_interleave(repeats, 1)


def _bias(delta_bias: Optional, u: Tensor) -> Optional:
    if delta_bias is None:
        return None
    repeats = u.shape[1] // delta_bias.shape[0]
    return delta_bias if repeats == 1 else delta_bias.repeat_interleave(repeats, 0)


class SelectiveScanCuda:
    """`selective_scan_cuda` of mamba-ssm: with a gate or without."""

    @staticmethod
    def fwd(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Optional,
        z: Optional,
        delta_bias: Optional,
        delta_softplus: bool,
    ) -> list[Tensor]:
        y, h_last = scan(u, delta, A, B, C, D, None, delta_bias, delta_softplus)
        outputs = [y, _intermediates(h_last)]
        return outputs if z is None else [*outputs, y * F.silu(z)]

    @staticmethod
    def bwd(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Optional,
        z: Optional,
        delta_bias: Optional,
        dout: Tensor,
        x: Optional,
        out: Optional,
        dz: Optional,
        delta_softplus: bool,
        recompute_out_z: bool,
    ) -> list[Optional]:
        """Besides: with a gate its gradient, also written to dz; the gated y if asked for."""
        inputs = (u, delta, A, B, C, D, z, delta_bias)
        gradients, y = _gradients(inputs, dout, delta_softplus)
        z_gradient = gradients.pop(6)
        if z_gradient is not None:
            gradients.append(z_gradient if dz is None else dz.copy_(z_gradient))
            if recompute_out_z:
                gradients.append(y)
        return gradients


class SelectiveScanCudaCore:
    """`selective_scan_cuda_core` and `_nrow` of VMamba: without a gate. nrows, how the GPU's work
    is cut, changes nothing here."""

    @staticmethod
    def fwd(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Optional,
        delta_bias: Optional,
        delta_softplus: bool,
        nrows: int = 1,
    ) -> list[Tensor]:
        delta, delta_bias = _per_channel(delta, u), _bias(delta_bias, u)
        y, h_last = scan(u, delta, A, B, C, D, None, delta_bias, delta_softplus)
        return [y, _intermediates(h_last)]

    @staticmethod
    def bwd(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Optional,
        delta_bias: Optional,
        dout: Tensor,
        x: Optional,
        delta_softplus: bool,
        nrows: int = 1,
    ) -> list[Optional]:
        gradients, _ = _gradients((u, delta, A, B, C, D, None, delta_bias), dout, delta_softplus)
        del gradients[6]
        return gradients


class SelectiveScanCudaOflex(SelectiveScanCudaCore):
    """`selective_scan_cuda_oflex` of VMamba: with a y in FP32 for inputs of any type."""

    @staticmethod
    def fwd(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Optional,
        delta_bias: Optional,
        delta_softplus: bool,
        nrows: int = 1,
        out_float: bool = True,
    ) -> list[Tensor]:
        inputs = (u.float() if out_float else u, delta, A, B, C, D, delta_bias, delta_softplus)
        return SelectiveScanCudaCore.fwd(*inputs)


class SelectiveScanCudaNdstate:
    """`selective_scan_cuda_ndstate` of VMamba: N is 1 and has no dimension, A (D), B and C
    (B, G, L)."""

    @staticmethod
    def fwd(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Optional,
        delta_bias: Optional,
        delta_softplus: bool,
        nrows: int = 1,
    ) -> list[Tensor]:
        A, B, C = A.unsqueeze(1), B.unsqueeze(2), C.unsqueeze(2)
        return SelectiveScanCudaCore.fwd(u, delta, A, B, C, D, delta_bias, delta_softplus)

    @staticmethod
    def bwd(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Optional,
        delta_bias: Optional,
        dout: Tensor,
        x: Optional,
        delta_softplus: bool,
        nrows: int = 1,
    ) -> list[Optional]:
        A, B, C = A.unsqueeze(1), B.unsqueeze(2), C.unsqueeze(2)
        du, ddelta, dA, dB, dC, *others = SelectiveScanCudaCore.bwd(
            u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus
        )
        assert dA is not None
        assert dB is not None
        assert dC is not None
        return [du, ddelta, dA.squeeze(1), dB.squeeze(2), dC.squeeze(2), *others]
