"""Colours that transparency hides must not show in an enlarged picture."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dvmsr.runtime import Upscaler
from dvmsr.runtime.images.alpha import extend_colours

HIDDEN = (0, 255, 0)


def disc(height: int, width: int) -> NDArray[np.float64]:
    """Alpha in [0, 1] of a disc with a soft edge two pixels wide."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(y - height / 2, x - width / 2)
    return np.clip((min(height, width) / 3 - radius) / 2, 0, 1)


def cut_out(height: int, width: int) -> Image.Image:
    """A reddish disc; what is quite transparent is pure green."""
    alpha = np.round(disc(height, width) * 255).astype(np.uint8)
    pixels = np.empty((height, width, 4), np.uint8)
    pixels[..., :3] = np.where(alpha[..., None], (200, 80, 60), HIDDEN)
    pixels[..., 3] = alpha
    return Image.fromarray(pixels)


def test_hidden_colours_do_not_bleed() -> None:
    """With the bundled network; a tenth of the hidden hue would show as a halo."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there are no native operators
        result = np.asarray(Upscaler.from_file(threads=1)(cut_out(24, 29))).astype(int)
    visible = result[..., 3] > 30
    assert visible.sum() > 1000
    red, green = result[..., 0][visible], result[..., 1][visible]
    assert np.abs(red - 200).max() < 25
    assert np.abs(green - 80).max() < 25


@pytest.mark.parametrize(("height", "width"), [(1, 7), (24, 29), (33, 16)])
def test_holes_are_filled_from_around(height: int, width: int) -> None:
    """To 24 of 255 levels: premultiplied colours are rounded at every halving."""
    image = cut_out(height, width)
    image.putpixel((width // 2, height // 2), (200, 80, 60, 255))
    filled = np.asarray(extend_colours(image)).astype(int)
    assert np.abs(filled - (200, 80, 60)).max() <= 24


def test_visible_pixels_stay() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (15, 10, 4), np.uint8)
    pixels[::2, ::3, 3] = 0
    filled = np.asarray(extend_colours(Image.fromarray(pixels)))
    visible = pixels[..., 3] > 0
    np.testing.assert_array_equal(filled[visible], pixels[visible][:, :3])


def test_gray_is_filled_too() -> None:
    pixels = np.full((9, 6, 2), (100, 255), np.uint8)
    pixels[2:5, 1:] = (255, 0)
    filled = extend_colours(Image.fromarray(pixels, "LA"))
    assert filled.mode == "L"
    assert np.abs(np.asarray(filled).astype(int) - 100).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_opaque_pictures_are_unchanged(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    image = Image.fromarray(noise).convert(mode)
    assert extend_colours(image).tobytes() == image.convert(mode.removesuffix("A")).tobytes()


def test_an_invisible_picture_is_black() -> None:
    image = Image.new("RGBA", (5, 3), (*HIDDEN, 0))
    assert extend_colours(image).getcolors() == [(15, (0, 0, 0))]
