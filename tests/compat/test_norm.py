"""RMSNorm and LayerNorm with a residual, against the formulas in FP64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dvmsr.compat import NotSupportedError
from dvmsr.compat.norm import RMSNorm, layer_norm_fn, rms_norm_fn

D = 24


def normalised(x: torch.Tensor, rms: bool, eps: float) -> torch.Tensor:
    x = x if rms else x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def tensors(seed: int, *shapes: tuple[int, ...]) -> list[Any]:
    torch.manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("residual_given", [True, False], ids=["residual", "first"])
@pytest.mark.parametrize("rms", [True, False], ids=["rms", "layer"])
def test_values_and_gradients(rms: bool, residual_given: bool) -> None:
    x, residual, x1 = tensors(0, *[(2, 5, D)] * 3)
    weight, bias, weight1, bias1 = tensors(1, *[(D,)] * 4)
    (rowscale,) = tensors(2, (2, 5))
    inputs = [x, x1, weight, bias, weight1, bias1, rowscale, *[residual] * residual_given]
    before = residual if residual_given else None
    outputs = layer_norm_fn(
        x, weight, bias, before, x1, weight1, bias1, 1e-3, 0.0, rowscale, True, False, rms
    )
    total = x * rowscale[..., None] + x1 + (residual if residual_given else 0)
    core = normalised(total, rms, 1e-3)
    expected = core * weight + bias, core * weight1 + bias1, total
    for one, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(one, other)
    found, truth = (
        torch.autograd.grad(sum(t.sin().sum() for t in some), inputs)
        for some in (outputs, expected)
    )
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves_are_added_and_normalised_in_fp32(dtype: torch.dtype) -> None:
    x, residual = (t.to(dtype) for t in tensors(0, (3, D), (3, D)))
    norm = RMSNorm(D)
    y, kept = norm(x, residual.float(), prenorm=True)
    assert (y.dtype, kept.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(kept, x.float() + residual.float())
    torch.testing.assert_close(y, normalised(kept, True, 1e-5).to(dtype))


@pytest.mark.parametrize("wide", [True, False])
def test_type_of_the_first_residual(wide: bool) -> None:
    x = torch.randn(3, D).half()
    _, kept = RMSNorm(D)(x, prenorm=True, residual_in_fp32=wide)
    assert kept.dtype == (torch.float32 if wide else torch.float16)
    torch.testing.assert_close(kept, x.to(kept.dtype))


def test_module_has_mamba_ssms_parameters() -> None:
    norm = RMSNorm(D, eps=1e-4, dtype=torch.float64)
    assert {name: p.shape for name, p in norm.state_dict().items()} == {"weight": (D,)}
    assert norm.bias is None
    assert norm.eps == 1e-4


def test_dropout_while_training_alone() -> None:
    x = torch.ones(50, D)
    norm = RMSNorm(D, dropout_p=0.5)
    assert (norm(x) == 0).any()
    assert not (norm.eval()(x) == 0).any()


def test_refuses_masks_by_name() -> None:
    with pytest.raises(NotSupportedError, match="return_dropout_mask"):
        rms_norm_fn(torch.ones(2, D), torch.ones(D), None, return_dropout_mask=True)
