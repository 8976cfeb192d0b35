"""Attention of fewer than four axes, against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dvmsr.export import export_network
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)


class Attends(nn.Module):
    """Without an axis for heads, without one for the batch, and with both, in one network."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (x * factor for factor in (3.0, -2.0, 1.0))  # (batch, tokens, 6)
        mask = (q @ k.mT) > -1
        near = mask | torch.eye(x.shape[1], dtype=torch.bool)
        heads = (t.unflatten(-1, (2, 3)).transpose(1, 2) for t in (q, k, v))
        return (
            scaled_dot_product_attention(q, k, v),
            scaled_dot_product_attention(q, k, v[..., :2], is_causal=True),
            scaled_dot_product_attention(q, k, v, attn_mask=near, scale=0.3),
            scaled_dot_product_attention(q[0], k[0], v[0], attn_mask=q[0] @ k[0].T),
            scaled_dot_product_attention(*heads),
        )


@pytest.mark.parametrize("opset", [18, 23])
def test_of_two_three_and_four_axes(tmp_path: Path, opset: int) -> None:
    export_network(
        Attends(),
        (torch.rand(2, 7, 6),),
        path := tmp_path / "a.onnx",
        {"x": {0: "batch", 1: "tokens"}},
        opset=opset,
        progress=lambda _: None,
    )
    x = torch.rand(3, 12, 6)
    for one, other in zip(open_model(path)(x=x.numpy()).values(), Attends()(x), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)
