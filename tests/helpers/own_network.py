"""Factories that people write, for what names a network as `own_network:factory`."""

from __future__ import annotations

import inspect
from pathlib import Path

import mamba_patterns
import torch
from torch import Tensor, nn


class Enlarge(nn.Module):
    """Super-resolution by two: pixels repeated, and a little of what a scan makes of them."""

    def __init__(self, scan: nn.Module | None = None) -> None:
        super().__init__()
        self.scan = scan or mamba_patterns.SS2D(3)
        self.register_buffer("share", torch.tensor(0.02))

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 2H, 2W)"""
        mended = picture + self.share * self.scan(picture)
        return mended.repeat_interleave(2, 2).repeat_interleave(2, 3)


def enlarge() -> nn.Module:
    torch.manual_seed(0)
    return Enlarge()


def in_windows() -> nn.Module:
    """It takes multiples of 4 alone."""
    torch.manual_seed(0)
    windows = mamba_patterns.Windows(False)
    windows.inner = mamba_patterns.SS2D(3)
    return Enlarge(windows)


def student() -> nn.Module:
    """DVMSR, by a factory."""
    from dvmsr import networks

    return networks.load("student")


def classify() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))


def halved() -> nn.Module:
    """Weights of bfloat16."""
    torch.manual_seed(0)
    return nn.Linear(8, 4).bfloat16()


class _Named(nn.Module):
    def forward(self, x: Tensor, **others: Tensor) -> tuple[Tensor, Tensor]:
        x.mul_(2)
        return x, others["shift"] + 1


def named() -> nn.Module:
    """It takes any name, changes its input, and returns two tensors."""
    return _Named()


def elsewhere() -> nn.Module:
    return nn.Linear(2, 2, device="meta")


class _Talkative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("computing")
        return x + 1


def talkative() -> nn.Module:
    """It prints, when it is made and when it computes."""
    print("making")
    return _Talkative()


class _WithMamba(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from mamba_ssm import Mamba

        self.scale = nn.Parameter(torch.ones(3))
        self.layers = nn.ModuleList([Mamba(8), Mamba(8)])
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def with_mamba() -> nn.Module:
    """Two mixers of a package that is not installed."""
    return _WithMamba()


FACTORIES = {
    "gated": (mamba_patterns.gated, (2, 5, 8), {0: "batch", 1: "length"}),
    "enlarge": (enlarge, (1, 3, 12, 16), {0: "batch", 2: "height", 3: "width"}),
    "in_windows": (in_windows, (1, 3, 8, 8), {2: "height", 3: "width"}),
    "classify": (classify, (1, 3, 8, 8), {2: "height", 3: "width"}),
}
"""By name, with the sizes of an example and its dynamic axes."""


def export_one(name: str, path: Path) -> Path:
    """One of `FACTORIES` as an ONNX file."""
    from dvmsr.export import export_network

    factory, shape, axes = FACTORIES[name]
    network = factory()
    parameter = next(iter(inspect.signature(network.forward).parameters))
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    export_network(
        *(network, {parameter: example}, path, {parameter: axes}),
        verify=False,
        progress=lambda line: None,
        source=f"{factory.__module__}:{name}",
    )
    return path
