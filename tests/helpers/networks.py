"""Small random networks for the export tests."""

from __future__ import annotations

import torch

from dvmsr.config import DVMSRConfig
from dvmsr.model import DVMSR

SMALL = DVMSRConfig(channels=8, depths=(1,), state=4, scale=2)


def random_network(config: DVMSRConfig = SMALL, spread: float = 0.1) -> DVMSR:
    """Fresh weights plus noise, by default enough for each to matter in the output."""
    torch.manual_seed(0)
    network = DVMSR(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return network
