"""PSNR on a held-out folder while training."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dvmsr.data.pairs import Pair, PairFiles, Pixels
from dvmsr.errors import UsageError
from dvmsr.eval.metrics import psnr_y
from dvmsr.train.optimiser import DivergedError
from dvmsr.train.run.state import Fingerprint


def to_tensor(images: Pixels | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1], channels-last in memory."""
    return torch.as_tensor(images).to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255


def load_validation(held_out: Sequence[PairFiles], scale: int) -> list[Pair]:
    """The pairs that `dvmsr.data.pairs.find_dataset` found in a held-out folder.

    Raises:
        UsageError: if one is too small, or a reduction is of another size.
        DvmsrError: if one is unreadable.
    """
    pairs = []
    for found in held_out:
        pair = found.load(scale)
        if min(pair.hr.shape[:2]) <= 2 * scale:
            raise UsageError(f"{found.hr} is too small to validate on; remove it")
        pairs.append(pair)
    return pairs


def fingerprint(pairs: Sequence[Pair]) -> Fingerprint:
    """Names the pairs: equal for equal pixels in equal order."""
    digest = hashlib.sha256()
    for image in (image for pair in pairs for image in (pair.hr, pair.lr)):
        digest.update(repr(image.shape).encode())
        digest.update(image.tobytes())
    return len(pairs), digest.hexdigest()


@torch.no_grad()
def validate(
    model: nn.Module,
    pairs: list[Pair],
    border: int,
    show: Callable[[int, Pixels], None] = lambda number, image: None,
) -> float:
    """Mean PSNR in dB on the Y channel, `border` pixels left out at each side, images as uint8.

    Args:
        show: gets each upscaled image (H, W, 3), with its number.

    Raises:
        DivergedError: if the network's result is not finite.
    """
    device = next(model.parameters()).device
    scores = []
    for number, pair in enumerate(pairs):
        output = model(to_tensor(pair.lr[None], device))[0]  # (3, H, W)
        if not output.isfinite().all():
            raise DivergedError("the network's results for --val became no finite numbers")
        image = (output.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        show(number, image)
        scores.append(psnr_y(image, pair.hr, border))
    return float(np.mean(scores))
