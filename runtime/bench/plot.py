"""The picture of a benchmark: one panel per input, one bar per model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from dvmsr.utils.colormap import FAINT, INK, PAPER, SERIES, font

if TYPE_CHECKING:
    from dvmsr.runtime.bench.measurement import Timed

_FINE = 2
"""Everything is drawn this many times larger and then reduced, for smooth edges."""
_OUTLIER = 2.5
"""Rounds that took longer than this many times the slowest model's median are off the scale: a
`>` at the end tells of them."""
_TITLE_TEXT = (
    "Time per run: median (bar, number), every round (dots), 95 % (line); ratio to the first"
)
_MARGIN, _ROW, _BAR, _PLOT, _NUMBERS = 20, 34, 16, 460, 170
_HEAD, _TITLE, _AXIS, _DOT = 48, 28, 34, 2


def draw(results: Sequence[Timed], headline: str) -> Image.Image:
    """Bars to the median, a dot for every round, a line to the 95th percentile, and `>` for
    rounds that are off the scale.

    Args:
        results: in the order of the rows; those of one input share a panel and its scale.
        headline: what is written below the title.
    """
    titles = list(dict.fromkeys(result.title for result in results))
    panels = [[result for result in results if result.title == title] for title in titles]
    models = list(dict.fromkeys(_label(result) for result in results))
    left = _MARGIN + 12 + int(max(font(13).getlength(model) for model in models))
    width = max(left + _PLOT + _NUMBERS, int(font(12).getlength(headline)) + 2 * _MARGIN)
    height = _HEAD + sum(_TITLE + _ROW * len(panel) + _AXIS for panel in panels)
    canvas = Image.new("RGB", (width * _FINE, height * _FINE), PAPER)
    pen = _Pen(canvas)
    pen.text(_MARGIN, 12, _TITLE_TEXT, INK, 15)
    pen.text(_MARGIN, 32, headline, FAINT, 12)
    top = _HEAD
    for panel in panels:
        pen.text(_MARGIN, top + 8, panel[0].title, INK, 14)
        _draw_panel(pen, panel, models, left, top + _TITLE)
        top += _TITLE + _ROW * len(panel) + _AXIS
    return canvas.resize((width, height), Image.Resampling.LANCZOS)


def _draw_panel(pen: _Pen, panel: Sequence[Timed], models: list[str], left: int, top: int) -> None:
    median = max(result.times.p50_ms for result in panel)
    rounds = [1e3 * seconds for result in panel for seconds in result.seconds]
    longest = max(ms for ms in rounds if ms <= _OUTLIER * median)
    step = _tick_step(longest)
    ticks = int(np.ceil(longest / step))
    scale, right = _PLOT / (ticks * step), left + _PLOT
    bottom = top + _ROW * len(panel)
    for k in range(ticks + 1):
        x = left + k * step * scale
        pen.line(x, top, x, bottom, "#e8eaed")
        pen.text(x, bottom + 5, f"{k * step:g}" + (" ms" if k == ticks else ""), FAINT, 12, "ma")
    for row, result in enumerate(panel):
        label, times = _label(result), result.times
        colour = SERIES[models.index(label) % len(SERIES)]
        middle = top + _ROW * row + _ROW // 2
        pen.text(left - 10, middle, label, INK, 13, "rm")
        end = left + times.p50_ms * scale
        pen.box(left, middle - _BAR // 2, end, middle + _BAR // 2, colour)
        pen.line(end, middle, min(left + times.p95_ms * scale, right), middle, INK)
        places = [left + seconds * 1e3 * scale for seconds in result.seconds]
        for x in places:
            if x <= right:
                pen.dot(x, middle, _DOT, INK)
        if max(places) > right:
            pen.text(right + 3, middle, ">", INK, 13, "lm")
        pen.text(left + _PLOT + 90, middle, f"{times.p50_ms:.4g} ms", INK, 13, "rm")
        pen.text(left + _PLOT + 150, middle, f"{times.ratio:.2f}", INK, 13, "rm")


def _tick_step(longest: float) -> float:
    """A round number that goes about five times into the longest time."""
    power = 10.0 ** np.floor(np.log10(longest / 5))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power * 5 >= longest))


def _label(result: Timed) -> str:
    return f"{result.name}  {result.backend} {result.precision}"


class _Pen:
    """Draws in the coordinates of the finished picture."""

    def __init__(self, canvas: Image.Image) -> None:
        self._draw = ImageDraw.Draw(canvas)

    def text(
        self, x: float, y: float, text: str, colour: str, size: int, anchor: str = "la"
    ) -> None:
        place = x * _FINE, y * _FINE
        self._draw.text(place, text, colour, font(size * _FINE), anchor)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        self._draw.line([v * _FINE for v in (x0, y0, x1, y1)], colour, _FINE)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        self._draw.rectangle([v * _FINE for v in (x0, y0, x1, y1)], colour)

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        box = [v * _FINE for v in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(box, colour)
