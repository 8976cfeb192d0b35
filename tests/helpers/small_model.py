"""A small random network, what it makes of an image, and images for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dvmsr.config import DVMSRConfig
from dvmsr.kernels import cpu
from dvmsr.model import DVMSR

CONFIG = DVMSRConfig(channels=8, depths=(1,), state=4, scale=2)
ONNX_BACKENDS = [
    pytest.param(
        "native", marks=pytest.mark.skipif(not cpu.library_path(), reason="no native operators")
    ),
    "portable",
]


@dataclass(frozen=True)
class Models:
    """One network as PyTorch module and as files."""

    network: DVMSR
    onnx: Path
    onnx_fp16: Path
    onnx_5x7: Path
    safetensors: Path
    pth: Path


def random_pixels(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(height * width).integers(0, 256, shape, np.uint8)


def reference(network: DVMSR, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What PyTorch makes of an image, rounded to 8 bits."""
    with torch.inference_mode():
        result = network(torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None])
    return (255 * result[0].permute(1, 2, 0).clamp(0, 1)).round().byte().numpy()
