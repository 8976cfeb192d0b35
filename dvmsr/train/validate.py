"""PSNR on a held-out folder while training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.metrics import psnr_y
from dvmsr.train.data import Pair, Pixels, crop_to_multiple, decode, find_sources, load_pair


def to_tensor(images: Pixels, device: torch.device | str = "cpu") -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1], channels-last in memory."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255


def load_validation(folder: Path, scale: int) -> list[Pair]:
    """The pairs of a held-out folder.

    Args:
        folder: HR images, or `HR/` with them; `LRx{scale}/` beside `HR/` with images of the same
            names is used where it exists, otherwise the HR images are reduced as MATLAB does.

    Raises:
        UsageError: if there are no images, one is too small, or an LR image is missing or of
            another size.
        DvmsrError: if one is unreadable.
    """
    hr_folder = folder / "HR" if (folder / "HR").is_dir() else folder
    lr_folder = hr_folder.parent / f"LRx{scale}"
    given = hr_folder.name == "HR" and lr_folder.is_dir()
    pairs = []
    for source in find_sources([hr_folder]):
        try:
            if not given:
                pairs.append(load_pair(source, scale))
                continue
            lr_file = lr_folder / source.name
            if not lr_file.is_file():
                raise UsageError(f"{lr_file} does not exist, but {source} does")
            hr, lr = crop_to_multiple(decode(source.read()), scale), decode(lr_file.read_bytes())
        except (OSError, ValueError) as error:
            raise DvmsrError(f"{source} or its reduction cannot be read ({error})") from None
        if (lr.shape[0] * scale, lr.shape[1] * scale) != hr.shape[:2]:
            raise UsageError(f"{lr_file} is not {scale} times smaller than {source}")
        pairs.append(Pair(hr, lr))
    if any(min(pair.hr.shape[:2]) <= 2 * scale for pair in pairs):
        raise UsageError(f"an image in {hr_folder} is too small to validate on; remove it")
    return pairs


@torch.no_grad()
def validate(model: nn.Module, pairs: list[Pair], border: int) -> float:
    """Mean PSNR in dB on the Y channel, `border` pixels left out at each side, images as uint8."""
    device = next(model.parameters()).device
    scores = []
    for pair in pairs:
        output = model(to_tensor(pair.lr[None], device))[0]  # (3, H, W)
        image = (output.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        scores.append(psnr_y(image, pair.hr, border))
    return float(np.mean(scores))
