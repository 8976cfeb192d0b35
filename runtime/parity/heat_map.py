"""A picture of where two outputs differ."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dvmsr.runtime.images.arrays import from_planes
from dvmsr.utils.colormap import INK, PAPER, font, inferno

DECADES = 2
"""The colours reach from the largest difference this many powers of ten down."""
LONGEST_SIDE, SHORTEST_SIDE = 900, 400
_MARGIN, _LINE, _BAR = 16, 22, 14


def draw(a: NDArray[np.float32], b: NDArray[np.float32], lines: Sequence[str]) -> Image.Image:
    """The first output on the left, and the absolute difference on the right.

    The difference is the largest over the colour channels, on a logarithmic scale under its own
    bar. Outputs larger than `LONGEST_SIDE` are shown smaller, each point as the largest
    difference that it stands for; small ones are magnified.

    Args:
        a, b: outputs (B, 3, H, W) of one shape, of which the first of the batch is shown.
        lines: what is written above.
    """
    difference = np.abs(a[0].astype(np.float64) - b[0]).max(axis=0)  # (H, W)
    peak = float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max())
    step = -(-max(difference.shape) // LONGEST_SIDE)
    picture = Image.fromarray(from_planes(a, np.uint8)).reduce(step)
    heat = Image.fromarray(inferno(_brightness(largest(difference, step), peak)))
    zoom = max(1, SHORTEST_SIDE // max(heat.size))
    size = heat.width * zoom, heat.height * zoom
    panels = [panel.resize(size, Image.Resampling.NEAREST) for panel in (picture, heat)]

    longest = int(max(font(14).getlength(line) for line in lines))
    width = max(2 * size[0] + 3 * _MARGIN, longest + 2 * _MARGIN, 500)
    top = _MARGIN + _LINE * len(lines)
    height = top + size[1] + 2 * _LINE + _BAR + 2 * _MARGIN
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN - 4 + row * _LINE), line, INK, font(14))
    canvas.paste(panels[0], (width // 2 - _MARGIN // 2 - size[0], top))
    canvas.paste(panels[1], (width // 2 + _MARGIN // 2, top))
    _scale(canvas, pen, top + size[1] + _MARGIN, peak)
    return canvas


def _brightness(difference: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
    """[0, 1] over the decades below the peak; what is not finite is at the top."""
    if not peak:
        return np.zeros_like(difference)
    if not np.isfinite(peak):
        return 1.0 - np.isfinite(difference)
    return np.clip(1 + np.log10(np.maximum(difference / peak, 1e-30)) / DECADES, 0, 1)


def largest(values: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """The maximum of each step x step block; those at the end may be smaller."""
    height, width = values.shape
    values = np.pad(values, ((0, -height % step), (0, -width % step)))
    blocks = values.reshape(values.shape[0] // step, step, values.shape[1] // step, step)
    result: NDArray[np.float64] = blocks.max(axis=(1, 3))
    return result


def _scale(canvas: Image.Image, pen: ImageDraw.ImageDraw, top: int, peak: float) -> None:
    """The bar of colours and what they stand for."""
    if not peak or not np.isfinite(peak):
        text = "values that are not finite" if peak else "the outputs are equal"
        pen.text((_MARGIN, top), text, INK, font(14))
        return
    width = canvas.width - 2 * _MARGIN
    bar = inferno(np.linspace(0, 1, width)[None].repeat(_BAR, axis=0))
    canvas.paste(Image.fromarray(bar), (_MARGIN, top))
    for decade in range(DECADES + 1):
        value = peak * 10.0 ** (decade - DECADES)
        x = _MARGIN + width * decade // DECADES
        anchor = "la" if decade == 0 else "ra" if decade == DECADES else "ma"
        pen.text((x, top + _BAR + 4), f"{value:.1e}", INK, font(13), anchor)
    below = "largest absolute difference of the colour channels (output range 0 to 1)"
    pen.text((canvas.width // 2, top + _BAR + _LINE), below, INK, font(13), "ma")
