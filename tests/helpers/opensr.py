"""opensr-mamba 0.0.1, which enlarges satellite pictures: other people's code and trained weights,
exported as its user would, with dvmsr's stand-ins for mamba-ssm."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

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

def sr():
    weights = importlib.resources.files("opensr_mamba.mamba.weights") / "srmodel.pth"
    network = MambaSR(
        img_size=128, in_chans=3, embed_dim=60, depths=[2, 2, 2, 2], d_state=16, mlp_ratio=1.5,
        upscale=4, attention_type="sigmoid_02", upsampler="pixelshuffledirect",
        resi_connection="1conv", operation_attention="sum",
    )
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return First(network)
'''


def skip_without_opensr() -> None:
    """Skip the running test where the network cannot be exported."""
    if any(importlib.util.find_spec(name) is None for name in ("opensr_mamba", "einops")):
        pytest.skip("opensr-mamba or einops is not installed")
    if cpu.library_path() is None:
        pytest.skip("dvmsr has no native operators here")


def export(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Writes `sr.onnx` into the folder."""
    (folder / "satellite.py").write_text(FACTORY)
    command = [
        sys.executable, "-c", "from dvmsr import entry; entry.dvmsr_export()", "onnx",
        "satellite:sr", "--input", "1x3x20x16", "--dynamic", "0:batch,2:height,3:width", *options,
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)
