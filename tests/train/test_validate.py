"""Validation: which pairs it takes, and its score against the evaluation's own metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dvmsr.data.imresize import imresize
from dvmsr.data.pairs import Pair, find_dataset
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.eval.metrics import psnr_y
from dvmsr.train.validate import load_validation, to_tensor, validate


def load(folder: Path, scale: int) -> list[Pair]:
    return load_validation(find_dataset(folder, scale).pairs, scale)


class Nearest(nn.Module):
    """Repeats pixels, with an offset that leaves [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(0.31))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=4.0, mode="nearest") + self.offset


def image(seed: int, height: int = 42, width: int = 38) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    for folder in ("HR", "LRx4"):
        (tmp_path / folder).mkdir()
    for i in range(2):
        hr = image(i)[:40, :36]
        Image.fromarray(hr).save(tmp_path / "HR" / f"{i}.png")
        Image.fromarray(hr[::4, ::4].copy()).save(tmp_path / "LRx4" / f"{i}.png")
    return tmp_path


def test_to_tensor_is_rgb_in_unit_range() -> None:
    pixels = image(0)[None]
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, 42, 38)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor[0, 2].numpy(), pixels[0, ..., 2] / 255, rtol=1e-7)


def test_given_reductions_are_used(held_out: Path) -> None:
    pair = load(held_out, 4)[1]
    np.testing.assert_array_equal(pair.lr, image(1)[:40:4, :36:4])


def test_without_reductions_they_are_bicubic(held_out: Path) -> None:
    """For another scale, and where the folder holds the images themselves."""
    other_scale = load(held_out, 2)[0]
    np.testing.assert_array_equal(other_scale.lr, imresize(image(0)[:40, :36], 0.5))
    Image.fromarray(image(5)).save(held_out / "own.png")
    (held_out / "HR").rename(held_out / "images")
    pair = load(held_out / "images", 4)[0]
    np.testing.assert_array_equal(pair.lr, imresize(pair.hr, 0.25))


def test_the_score_is_the_mean_psnr_of_clamped_and_rounded_images() -> None:
    pairs = [Pair(image(i)[:40, :36], image(i + 9, 10, 9)) for i in range(2)]
    scores = []
    for pair in pairs:
        shifted = np.clip(pair.lr / 255 + 0.31, 0, 1) * 255
        sr = np.round(shifted.repeat(4, 0).repeat(4, 1)).astype(np.uint8)
        scores.append(psnr_y(sr, pair.hr, 4))
    assert validate(Nearest(), pairs, border=4) == pytest.approx(np.mean(scores), abs=1e-9)


def test_unusable_folders_are_named(held_out: Path) -> None:
    small = held_out / "LRx4" / "1.png"
    Image.fromarray(image(0, 9, 9)).save(small)
    with pytest.raises(UsageError, match=r"LRx4/1\.png has 9x9 pixels"):
        load(held_out, 4)
    small.unlink()
    with pytest.raises(UsageError, match=r"1\.png is missing"):
        load(held_out, 4)
    small.write_bytes(b"broken")
    with pytest.raises(DvmsrError, match=r"LRx4/1\.png"):
        load(held_out, 4)
    Image.fromarray(image(0, 8, 20)).save(held_out / "HR" / "0.png")
    with pytest.raises(UsageError, match="too small"):
        load(held_out, 3)
