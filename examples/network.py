"""Your own network: a Mamba classifier for mamba-ssm, as an ONNX file that runs without PyTorch.

pip install ".[export]"
python examples/network.py classifier.onnx
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import dvmsr.compat
from dvmsr.export import export_network
from dvmsr.runtime import open_model

with dvmsr.compat.importing():  # mamba-ssm's names, whether or not it is installed
    from mamba_ssm import Mamba


class Classifier(nn.Module):
    """Patches of 8x8 pixels, two mixers, the mean over all patches."""

    def __init__(self, classes: int = 10, channels: int = 64) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, channels, 8, stride=8)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.mixers = nn.ModuleList(Mamba(d_model=channels) for _ in range(2))
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, classes)"""
        x = self.embed(image).flatten(2).transpose(1, 2)
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            x = x + mixer(norm(x))
        return self.head(x.mean(1))


def main(target: str) -> None:
    torch.manual_seed(0)
    network = Classifier().eval()
    report = export_network(
        network, (torch.rand(1, 3, 64, 96),), target, dynamic={"image": {0: "batch"}}
    )
    print(f"{report.path}: {', '.join(report.nodes)}")
    image = np.random.default_rng(0).random((2, 3, 64, 96), np.float32)
    found = open_model(Path(target))(image=image)["output"]
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
    print(f"largest difference to PyTorch: {np.abs(found - expected).max():.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
