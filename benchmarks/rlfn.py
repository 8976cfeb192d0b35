"""RLFN, the CNN that DVMSR races against (Residual Local Feature Network, arXiv 2205.07514), in
the pruned variant that won the runtime track of NTIRE 2022: 0.317 M parameters. Written after the
paper; parameter names as in the released weights."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2 if stride == 1 else 0)


class ESA(nn.Module):
    """Enhanced spatial attention: a gate computed at a sixth of the resolution."""

    def __init__(self, channels: int, narrow: int = 16) -> None:
        super().__init__()
        self.conv1 = conv(channels, narrow, 1)
        self.conv_f = conv(narrow, narrow, 1)
        self.conv2 = conv(narrow, narrow, stride=2)
        self.conv3 = conv(narrow, narrow)
        self.conv4 = conv(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(x)
        context = self.conv3(F.max_pool2d(self.conv2(narrow), 7, 3))
        context = F.interpolate(context, x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(context + self.conv_f(narrow)))


class RLFB(nn.Module):
    """Residual local feature block: three convolutions, a skip, a mix of channels, ESA."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.c1_r = conv(channels, middle)
        self.c2_r = conv(middle, middle)
        self.c3_r = conv(middle, channels)
        self.c5 = conv(channels, channels, 1)
        self.esa = ESA(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in (self.c1_r, self.c2_r, self.c3_r):
            y = F.leaky_relu(layer(y), 0.05)
        return self.esa(self.c5(y + x))


class RLFN(nn.Module):
    """(B, 3, H, W) -> (B, 3, 4H, 4W), RGB in [0, 255] with the released weights."""

    def __init__(self, channels: int = 46, middle: int = 48, scale: int = 4) -> None:
        super().__init__()
        self.conv_1 = conv(3, channels)
        for i in range(1, 5):
            setattr(self, f"block_{i}", RLFB(channels, middle))
        self.conv_2 = conv(channels, channels)
        self.upsampler = nn.Sequential(conv(channels, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_1(x)
        y = first
        for i in range(1, 5):
            y = getattr(self, f"block_{i}")(y)
        return self.upsampler(self.conv_2(y) + first)


def load(path: Path) -> RLFN:
    """The network with the released weights (a plain state dict)."""
    network = RLFN().eval()
    network.load_state_dict(torch.load(path, "cpu", weights_only=True))
    return network
