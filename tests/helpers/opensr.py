"""opensr-mamba 0.0.1, which enlarges satellite pictures: other people's code and trained weights,
exported as its user would, with dvmsr's stand-ins for mamba-ssm."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from dvmsr.kernels import cpu

FACTORY = '''
"""What a user writes: the network as its authors build it, and its first output alone."""
import importlib.resources, sys, types
import torch
from torch import nn

# The network takes three helpers of timm from where timm no longer has them.
layers = types.ModuleType("timm.models.layers")
layers.to_2tuple = lambda x: x if isinstance(x, tuple) else (x, x)
layers.trunc_normal_, layers.DropPath = nn.init.trunc_normal_, nn.Identity
timm, timm.models = types.ModuleType("timm"), types.ModuleType("timm.models")
timm.layers = timm.models.layers = layers
sys.modules |= {"timm": timm, "timm.models": timm.models, "timm.models.layers": layers}
sys.modules["timm.layers"] = layers
from opensr_mamba.mamba.main import MambaSR

class First(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, save_attention_maps=True)[0]

def load(file, **sizes):
    network = MambaSR(
        img_size=128, embed_dim=60, depths=[2, 2, 2, 2], d_state=16, mlp_ratio=1.5,
        attention_type="sigmoid_02", upsampler="pixelshuffledirect", resi_connection="1conv",
        **sizes,
    )
    weights = importlib.resources.files("opensr_mamba.mamba.weights") / file
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return First(network)

def sr():
    return load("srmodel.pth", in_chans=3, upscale=4, operation_attention="sum")

def fusion01():
    return load(
        "fusionmodel01.pth", in_chans=10, out_chans=6, upscale=1, operation_attention="prod"
    )

def fusion02():
    return load(
        "fusionmodel02.pth", in_chans=10, out_chans=7, upscale=1, operation_attention="sum"
    )
'''


NEEDED = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("opensr_mamba", "einops")),
        reason="opensr-mamba or einops is not installed",
    ),
    pytest.mark.skipif(cpu.library_path() is None, reason="dvmsr has no native operators here"),
]
"""Marks of tests that export it."""


def export(folder: Path, name: str, channels: int, *options: str) -> CompletedProcess[str]:
    """Writes one of its networks, `sr`, `fusion01` or `fusion02`, as `<name>.onnx`.

    Args:
        channels: of its pictures.
    """
    (folder / "satellite.py").write_text(FACTORY)
    command = [
        sys.executable, "-c", "from dvmsr import entry; entry.dvmsr_export()", "onnx",
        f"satellite:{name}", "--input", f"1x{channels}x20x16",
        "--dynamic", "0:batch,2:height,3:width", "-o", f"{name}.onnx", *options,
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)
