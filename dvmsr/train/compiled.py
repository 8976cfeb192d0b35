"""torch.compile for training."""

import torch

from dvmsr.model import DVMSR

BACKEND = "inductor"


def compile_blocks(model: DVMSR) -> None:
    """Compile the network's RSSBs, each when it is first called; all else stays as it is.

    One compilation serves all blocks of equal depth. Only their `forward` is replaced: names of
    parameters remain, and hooks, which distillation sets anew in each step, run outside.
    """
    for block in model.layers:
        block.forward = torch.compile(block.forward, backend=BACKEND)
