"""Attention of any number of axes, with masks that broadcast, against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attention

from dvmsr.export import export_network
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)


class FewAxes(nn.Module):
    """Without an axis for heads, and without one for the batch."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (x * factor for factor in (3.0, -2.0, 1.0))  # (batch, tokens, 6)
        near = (q @ k.mT > -1) | torch.eye(x.shape[1], dtype=torch.bool)
        return (
            attention(q, k, v),
            attention(q, k, v[..., :2], is_causal=True),
            attention(q, k, v, attn_mask=near, scale=0.3),
            attention(q, k, v, attn_mask=x[:, None, :, 0]),
            attention(q[0], k[0], v[0], attn_mask=q[0] @ k[0].T),
            attention(q[0], k[0], v[0], attn_mask=x[0, :, 0]),
        )


class Heads(nn.Module):
    """With four axes and masks for all heads, all queries or all keys, and with more axes."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (x.unflatten(-1, (2, 3)).transpose(1, 2) * factor for factor in (3.0, -2.0, 1.0))
        values = x[:, None, None, :, 0]
        kept = values >= 0.5 * values.amax(-1, keepdim=True)  # never none
        many = [torch.stack((one, one + 1), 1) for one in (q, k, v)]
        fewer = (many[0], *(one[..., 1:, :] for one in many[1:]))
        return (
            attention(q, k, v),
            attention(q, k, v, attn_mask=kept),
            attention(q, k, v, attn_mask=x[:, None, :, :1]),
            attention(q, k, v, attn_mask=x[0, None, :, 0]),
            attention(*many),
            attention(*many, attn_mask=x[0, None, :, 0]),
            attention(*fewer),
        )


@pytest.mark.parametrize("network", [FewAxes(), Heads()], ids=["2-and-3-axes", "4-and-5-axes"])
@pytest.mark.parametrize("opset", [18, 23])
def test_of_any_axes_and_masks(tmp_path: Path, network: nn.Module, opset: int) -> None:
    export_network(
        network,
        (torch.rand(2, 7, 6) + 0.01,),
        path := tmp_path / "a.onnx",
        {"x": {0: "batch", 1: "tokens"}},
        opset=opset,
        progress=lambda _: None,
    )
    x = torch.rand(3, 12, 6) + 0.01
    for one, other in zip(open_model(path)(x=x.numpy()).values(), network(x), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)
