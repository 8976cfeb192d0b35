"""Transparency of pictures that are read by rows: pixel for pixel what the whole picture gives."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dvmsr.runtime.images.alpha import doubled, filled, visible_or_not

_LEVELS = 4
"""How often a picture is halved until its colours are filled in as a whole."""
_MARGIN = 3
"""Rows above and below that bicubic interpolation may look at."""

Read = Callable[[int], Iterator[Image.Image]]
"""A picture's rows from top to bottom, so many at a time."""


def extended_strips(
    read: Read,
    height: int,
    rows: int,
    take_alpha: Callable[[NDArray[np.uint8]], None] = lambda alpha: None,
) -> Iterator[Image.Image]:
    """`alpha.extend_colours` of a picture by strips of so many rows.

    Hidden colours may come from far away. So the picture is read twice: first for the coarse part
    of the pyramid, which is small enough to be filled in as a whole; then the fine part follows
    from the rows around each strip.

    Args:
        read: of mode LA or RGBA; called twice.
        height: of the whole picture.
        take_alpha: called with each strip's alpha, before the strip comes.
    """
    heights = [height]
    for _ in range(_LEVELS):
        heights.append((heights[-1] + 1) // 2)
    coarse = _coarse(read)
    window = _Window(read(rows))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        spans = _spans(start, stop, heights)
        first = spans[-1][0] << _LEVELS
        around = window.rows(first, min(spans[-1][1] << _LEVELS, height))
        strip = _rows(around, start - first, stop - first)
        take_alpha(np.asarray(strip.getchannel("A")))
        if coarse is None:
            yield strip.convert(strip.mode.removesuffix("A"))
            continue
        level = visible_or_not(around)
        fine = []
        for k in range(_LEVELS):
            offset = first >> k
            fine.append(_rows(level, spans[k][0] - offset, spans[k][1] - offset))
            level = visible_or_not(level.reduce(2))
        colours = _rows(coarse, *spans[-1])
        for k in reversed(range(_LEVELS)):
            colours = _onto(fine[k], colours, spans[k], spans[k + 1][0])
        yield _rows(colours, start - spans[0][0], stop - spans[0][0])


class EnlargedAlpha:
    """The alpha of a picture, enlarged by bicubic interpolation row by row.

    First along the rows, then along the columns, as Pillow does with a whole picture; 16 bits are
    interpolated in FP32.
    """

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._waiting: NDArray[Any] | None = None
        self._top = self._done = 0

    def add(self, alpha: NDArray[Any]) -> None:
        """Rows (any number, W), uint8 or uint16, below those before; three must be here beyond
        those that are taken."""
        if alpha.dtype != np.uint8:
            alpha = alpha.astype(np.float32)
        height, width = alpha.shape
        size = (width * self._scale, height)
        rows = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC))
        self._waiting = rows if self._waiting is None else np.concatenate([self._waiting, rows])

    def take(self, rows: int) -> NDArray[Any]:
        """The next rows, counted before they are enlarged: (s*rows, s*W) of the type added."""
        assert self._waiting is not None
        start, stop = self._done, self._done + rows
        source = Image.fromarray(self._waiting)
        box = (0, start - self._top, source.width, stop - self._top)
        size = (source.width, rows * self._scale)
        result = np.asarray(source.resize(size, Image.Resampling.BICUBIC, box))
        top = max(stop - _MARGIN, 0)
        self._waiting = self._waiting[top - self._top :]
        self._top, self._done = top, stop
        if result.dtype == np.uint8:
            return result
        return np.rint(result.clip(0, np.iinfo(np.uint16).max)).astype(np.uint16)


class _Window:
    """Some rows of a picture that comes in strips; the first wanted never goes back."""

    def __init__(self, strips: Iterator[Image.Image]) -> None:
        self._strips = strips
        self._held: list[NDArray[np.uint8]] = []
        self._top = self._bottom = 0

    def rows(self, start: int, stop: int) -> Image.Image:
        while self._bottom < stop:
            self._held.append(np.asarray(next(self._strips)))
            self._bottom += len(self._held[-1])
        held = np.concatenate(self._held)[start - self._top :]
        self._held, self._top = [held], start
        return Image.fromarray(held[: stop - start])


def _coarse(read: Read) -> Image.Image | None:
    """The whole picture halved `_LEVELS` times, without holes; None if there are none before."""
    parts, holes = [], False
    for strip in read(1 << _LEVELS + 2):
        level = visible_or_not(strip)
        holes |= level.getchannel("A").getextrema()[0] == 0
        for _ in range(_LEVELS):
            level = visible_or_not(level.reduce(2))
        parts.append(np.asarray(level))
    return filled(Image.fromarray(np.concatenate(parts))) if holes else None


def _spans(start: int, stop: int, heights: list[int]) -> list[tuple[int, int]]:
    """Of each level the rows that the rows [start, stop) of the finest follow from: even first and
    last ones, and one more of the coarser level on both sides, at which interpolation looks."""
    spans = []
    for k, height in enumerate(heights):
        if k:
            start, stop = max(start // 2 - 1, 0), (stop + 1) // 2 + 1
        if k < _LEVELS:
            start, stop = start & ~1, stop + stop % 2
        stop = min(stop, height)
        spans.append((start, stop))
    return spans


def _onto(fine: Image.Image, coarse: Image.Image, span: tuple[int, int], top: int) -> Image.Image:
    """The visible colours of a level's rows, and where it has none those of the coarser level,
    whose rows begin at `top`."""
    result = doubled(coarse, fine.size, span[0] / 2 - top)
    result.paste(fine.convert(result.mode), mask=fine.getchannel("A"))
    return result


def _rows(image: Image.Image, start: int, stop: int) -> Image.Image:
    return image.crop((0, start, image.width, stop))
