"""The picture that `dvmsr lam` draws: a row of panels for each network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dvmsr.data.pairs import Pixels
from dvmsr.lam.window import Box
from dvmsr.runtime.parity.heat_map import largest
from dvmsr.utils.colormap import INK, PAPER, font, inferno

if TYPE_CHECKING:
    from dvmsr.lam.explanation import Explanation

DECADES = 3
"""The colours reach from the largest attribution this many powers of ten down."""
PANEL = 400
"""Largest side of a panel, about."""
NOTHING = (150, 170, 190)
"""The colour of pixels without any influence."""
FRAME, EDGE = (64, 224, 255), (0, 0, 0)
TITLES = ("input", "attribution", "attribution over the input", "result")
_MARGIN, _LINE, _BAR = 20, 26, 16
_LEAST_WIDTH = 800
"""For the legend below narrow panels."""


def draw(lr: Pixels, window: Box, found: Sequence[Explanation]) -> Pixels:
    """A row per network: the input with the window's place, the attribution map, that map over
    the input, and the result; below them what the colours stand for.

    Args:
        lr: the patch that the networks were given, (h, w, 3).
        window: in pixels of the results.

    Returns:
        (H, W, 3).
    """
    size = _panel_size(*lr.shape[:2])
    row = _LINE + size[1] + _MARGIN
    titles = max(font(15).getlength(title) for title in TITLES)
    stride = max(size[0], int(titles)) + _MARGIN
    names = [
        f"{explanation.name}: diffusion index {explanation.diffusion_index:.2f}"
        for explanation in found
    ]
    longest = max(font(16).getlength(name) for name in names)
    width = max(_MARGIN + len(TITLES) * stride, int(longest) + 2 * _MARGIN, _LEAST_WIDTH)
    height = _MARGIN + _LINE + len(found) * row + _BAR + 2 * _LINE
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    for column, title in enumerate(TITLES):
        pen.text((_MARGIN + column * stride, _MARGIN - 6), title, INK, font(15))
    for k, (explanation, name) in enumerate(zip(found, names, strict=True)):
        top = _MARGIN + _LINE + k * row
        pen.text((_MARGIN, top), name, INK, font(16))
        for column, panel in enumerate(_panels(lr, explanation, size)):
            place = _MARGIN + column * stride, top + _LINE
            canvas.paste(panel, place)
            _frame(pen, place, window, size[0] / explanation.sr.shape[1])
    _legend(canvas, pen, height - _BAR - 2 * _LINE)
    return np.asarray(canvas)


def _panel_size(height: int, width: int) -> tuple[int, int]:
    """Width and height: the patch magnified or reduced by a whole number."""
    longest = max(height, width)
    if longest > PANEL:
        step = -(-longest // PANEL)
        return -(-width // step), -(-height // step)
    return width * (PANEL // longest), height * (PANEL // longest)


def _panels(lr: Pixels, explanation: Explanation, size: tuple[int, int]) -> list[Image.Image]:
    strength, nothing = brightness(explanation.attribution)
    if size[0] < lr.shape[1]:
        step = -(-lr.shape[1] // size[0])
        lr = np.asarray(Image.fromarray(lr).reduce(step))
        nothing = largest(np.where(nothing, 0.0, 1.0), step) == 0
        strength = largest(strength, step)
    heat = inferno(strength)
    heat[nothing] = NOTHING
    grey = np.asarray(Image.fromarray(lr).convert("L"))[..., None].repeat(3, axis=-1) * 0.8
    share = 0.85 * np.sqrt(strength)[..., None]
    over = np.rint(grey * (1 - share) + inferno(0.2 + 0.8 * strength) * share).astype(np.uint8)
    blocks = [Image.fromarray(pixels) for pixels in (lr, heat, over)]
    sr = Image.fromarray(explanation.sr)
    return [
        *(block.resize(size, Image.Resampling.NEAREST) for block in blocks),
        sr.resize(size, Image.Resampling.LANCZOS),
    ]


def brightness(
    attribution: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """[0, 1] over the decades below the largest attribution; and which pixels have exactly none."""
    share = np.maximum(attribution / attribution.max(), 1e-30)
    strength: NDArray[np.float64] = np.clip(1 + np.log10(share) / DECADES, 0, 1)
    return strength, attribution == 0


def _frame(pen: ImageDraw.ImageDraw, place: tuple[int, int], window: Box, zoom: float) -> None:
    """Around the window, bright with a dark edge."""
    left, top = place[0] + window.x * zoom, place[1] + window.y * zoom
    right, bottom = left + window.width * zoom, top + window.height * zoom
    for distance, colour in ((1, FRAME), (2, FRAME), (3, EDGE)):
        corners = left - distance, top - distance, right + distance - 1, bottom + distance - 1
        pen.rectangle([round(corner) for corner in corners], outline=colour)


def _legend(canvas: Image.Image, pen: ImageDraw.ImageDraw, top: int) -> None:
    """The bar of colours, what its ends mean, and the colour beside it."""
    small = font(14)
    text = "exactly none"
    swatch = canvas.width - _MARGIN - int(small.getlength(text)) - 1
    width = swatch - 3 * _MARGIN
    bar = inferno(np.linspace(0, 1, width)[None].repeat(_BAR, axis=0))
    canvas.paste(Image.fromarray(bar), (_MARGIN, top))
    pen.rectangle((swatch, top, canvas.width - _MARGIN - 1, top + _BAR - 1), NOTHING)
    pen.text((swatch, top + _BAR + 4), text, INK, small)
    for decade in range(DECADES + 1):
        anchor = "la" if decade == 0 else "ra" if decade == DECADES else "ma"
        label = f"{10.0 ** (decade - DECADES):g}"
        label += " and less" * (decade == 0) + " (the largest)" * (decade == DECADES)
        x = _MARGIN + width * decade // DECADES
        pen.text((x, top + _BAR + 4), label, INK, small, anchor)
    meaning = "share of the largest attribution, on a logarithmic scale"
    pen.text((_MARGIN + width // 2, top + _BAR + _LINE), meaning, INK, small, "ma")
