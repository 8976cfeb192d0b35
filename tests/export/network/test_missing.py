"""Translations that PyTorch's exporter lacks, against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dvmsr.export import export_network
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)


class Sorts(nn.Module):
    """Along the last axis, the first and one between; with many equal values."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        whole = (x * 4).long()
        return (
            *torch.sort(x),
            *torch.sort(x, dim=0, descending=True),
            *torch.sort(whole, dim=1, stable=True),
            *torch.sort(whole, dim=-2, descending=True, stable=True),
            torch.argsort(whole, dim=-3, stable=True),
            x.flatten().msort(),
        )


def test_sort_by_values_of_each_axis(tmp_path: Path) -> None:
    report = export_network(
        Sorts(), (torch.rand(5, 9, 7),), tmp_path / "s.onnx", {"x": {0: "a", 1: "b", 2: "c"}},
        progress=lambda _: None,
    )  # fmt: skip
    assert report.nodes["TopK"] == 6
    x = torch.rand(3, 40, 2)
    found = open_model(tmp_path / "s.onnx")(x=x.numpy())
    for one, other in zip(found.values(), Sorts()(x), strict=True):
        np.testing.assert_array_equal(one, other.numpy())


class ByRoute(nn.Module):
    """Tokens gathered by a sort of few, so many equal, values, as in MambaIRv2."""

    def forward(self, x: Tensor) -> Tensor:
        order = torch.sort((x[..., 0] * 8).long(), dim=-1)[1]
        return x.gather(1, order.unsqueeze(-1).expand_as(x)).cumsum(1)


def test_an_order_that_pytorch_leaves_open_is_told_and_kept(tmp_path: Path) -> None:
    lines: list[str] = []
    x = torch.rand(1, 600, 3)
    export_network(
        ByRoute(),
        (x,),
        tmp_path / "r.onnx",
        {"x": {0: "batch", 1: "tokens"}},
        progress=lines.append,
    )
    (told,) = (line for line in lines if "order of equal values" in line)
    assert __file__ in told
    order = np.argsort((x[0, :, 0] * 8).long().numpy(), kind="stable")
    (found,) = open_model(tmp_path / "r.onnx")(x=x.numpy()).values()
    np.testing.assert_allclose(found[0], x[0].numpy()[order].cumsum(0), rtol=1e-5)
