"""The fused functions against their definition, written in PyTorch over the FP64 references."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from vectors import error

from dvmsr.compat import NotSupportedError
from dvmsr.compat.inner import bimamba_inner_fn, mamba_inner_fn, mamba_inner_fn_no_out_proj
from dvmsr.ops.reference import causal_conv1d_reference, selective_scan_reference

BATCH, LENGTH, D, N, K, RANK, OUTER = 2, 13, 6, 4, 4, 3, 5


def made(**shapes: tuple[int, ...]) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        name: (0.5 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
        for name, shape in shapes.items()
    }


def arguments() -> dict[str, Any]:
    given = made(
        xz=(BATCH, 2 * D, LENGTH),
        conv1d_weight=(D, 1, K),
        conv1d_bias=(D,),
        x_proj_weight=(RANK + 2 * N, D),
        delta_proj_weight=(D, RANK),
        D=(D,),
        delta_bias=(D,),
    )
    return {**given, "A": -torch.rand(D, N, dtype=torch.float64).add(0.1).requires_grad_()}


def definition(g: dict[str, Any], A: torch.Tensor, reverse: bool = False) -> torch.Tensor:
    """y (B, L, D) before the outer projection."""
    x, z = g["xz"].chunk(2, 1)
    zeros = x.new_zeros(BATCH, K - 1, D)
    bias = x.new_zeros(D) if g.get("conv1d_bias") is None else g["conv1d_bias"]
    x, _ = causal_conv1d_reference(x.mT, g["conv1d_weight"][:, 0], bias, zeros)
    projected = x @ g["x_proj_weight"].T
    delta = projected[..., :RANK] @ g["delta_proj_weight"].T
    B = projected[..., RANK : RANK + N] + g.get("B_proj_bias", 0)
    C = projected[..., RANK + N :] + g.get("C_proj_bias", 0)
    B = g["B"].mT if "B" in g else _rms(B, g.get("b_rms_weight"))
    C = _rms(C, g.get("c_rms_weight"))
    delta = _rms(delta, g.get("dt_rms_weight"))
    per_token = [t.flip(1) if reverse else t for t in (x, delta, B, C, z.mT)]
    u, delta, B, C, z = per_token
    h0 = x.new_zeros(BATCH, D, N)
    y, _ = selective_scan_reference(
        u, delta, A, B.unsqueeze(2), C.unsqueeze(2), g["D"], g["delta_bias"], h0, z
    )
    return y.flip(1) if reverse else y


def _rms(x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    if weight is None:
        return x
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def same(found: torch.Tensor, truth: torch.Tensor, inputs: dict[str, Any]) -> None:
    """Values and gradients of all inputs, relative to the largest of each."""
    assert error(found.detach().numpy(), truth.detach().numpy()) <= 1e-10
    tensors = [t for t in inputs.values() if t is not None]
    gradients = [torch.autograd.grad(y.square().sum(), tensors) for y in (found, truth)]
    for one, other in zip(*gradients, strict=True):
        assert error(one.numpy(), other.numpy()) <= 1e-9


def test_without_outer_projection() -> None:
    given = arguments()
    y = mamba_inner_fn_no_out_proj(**given)
    assert y.is_contiguous()
    same(y, definition(given, given["A"]).mT, given)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"B_proj_bias": (N,), "C_proj_bias": (N,)},
        {"b_rms_weight": (N,), "c_rms_weight": (N,), "dt_rms_weight": (D,)},
        {"B": (BATCH, N, LENGTH)},
    ],
    ids=["plain", "biases", "norms", "own_B"],
)
def test_with_outer_projection(more: dict[str, tuple[int, ...]]) -> None:
    given = {**arguments(), **made(out_proj_weight=(OUTER, D), out_proj_bias=(OUTER,), **more)}
    truth = F.linear(
        definition(given, given["A"]), given["out_proj_weight"], given["out_proj_bias"]
    )
    same(mamba_inner_fn(**given), truth, given)


def test_without_biases() -> None:
    given = {**arguments(), **made(out_proj_weight=(OUTER, D))}
    given["conv1d_bias"] = None
    y = mamba_inner_fn(**given, out_proj_bias=None)
    same(y, F.linear(definition(given, given["A"]), given["out_proj_weight"]), given)


def test_both_directions() -> None:
    given = {**arguments(), **made(out_proj_weight=(OUTER, D), out_proj_bias=(OUTER,))}
    given["A_b"] = (2 * given["A"].detach()).requires_grad_()
    both = definition(given, given["A"]) + definition(given, given["A_b"], reverse=True)
    truth = F.linear(both, given["out_proj_weight"], given["out_proj_bias"])
    same(bimamba_inner_fn(**given), truth, given)


def test_autocast_halves_the_projections() -> None:
    given = {k: v.detach().float() for k, v in arguments().items()}
    truth = mamba_inner_fn_no_out_proj(**given)
    with torch.autocast("cpu", torch.bfloat16):
        y = mamba_inner_fn_no_out_proj(**{**given, "xz": given["xz"].bfloat16()})
    assert y.dtype == torch.bfloat16
    assert (y - truth).abs().max() <= 3e-2 * truth.abs().max()


def test_refuses_by_name() -> None:
    with pytest.raises(NotSupportedError, match="complex A"):
        mamba_inner_fn_no_out_proj(**{**arguments(), "A": torch.ones(D, N, dtype=torch.cfloat)})
    with pytest.raises(NotSupportedError, match=r"B of shape"):
        mamba_inner_fn_no_out_proj(**arguments(), B=torch.ones(D, N, dtype=torch.float64))
