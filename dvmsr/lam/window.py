"""Rectangles of pixels: the window of a result that is looked at, and the patch around it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dvmsr.errors import UsageError

DEFAULT_SIDE = 16
"""Of a window whose size is left out."""


@dataclass(frozen=True)
class Box:
    """A rectangle; x and y are those of its first pixel, counted from 0 at the top left."""

    x: int
    y: int
    width: int
    height: int

    def times(self, scale: int) -> Box:
        """The same place in an image that many times as large."""
        return Box(*(scale * value for value in (self.x, self.y, self.width, self.height)))

    def inside(self, other: Box) -> Box:
        """The same place, counted from the first pixel of a rectangle around it."""
        return Box(self.x - other.x, self.y - other.y, self.width, self.height)


def parse_window(option: str, text: str) -> Box:
    """`160,120,16` or `160,120` -> a square of 16 pixels, its first one in column 160, row 120.

    Args:
        option: its name, for the message.

    Raises:
        UsageError: for anything but two or three whole numbers, the third positive, of up to 6
            digits.
    """
    numbers = [part.strip() for part in text.split(",")]
    if len(numbers) in (2, 3) and all(re.fullmatch("[0-9]{1,6}", part) for part in numbers):
        x, y, side = (int(part) for part in [*numbers, str(DEFAULT_SIDE)][:3])
        if side:
            return Box(x, y, side, side)
    raise UsageError(
        f"{option} takes X,Y,SIZE, whole numbers of up to 6 digits, SIZE at least 1, such as "
        f"160,120,16, not {text if len(text) <= 40 else f'{text[:40]}...'!r}"
    )


def patch_around(window: Box, scale: int, height: int, width: int, side: int) -> Box:
    """The part of an image that a network is given, with a window of its result in the middle.

    Args:
        window: in pixels of the result, which has `scale` times the height and width.
        side: of the patch, in pixels of the image; where the image has fewer, it has as many.

    Returns:
        In pixels of the image; moved inwards where the window is close to the border.

    Raises:
        UsageError: if the window reaches beyond the result, or does not fit into the patch.
    """
    if window.x + window.width > scale * width or window.y + window.height > scale * height:
        raise UsageError(
            f"--window {window.x},{window.y},{window.width} reaches beyond the result, which has "
            f"{scale * width}x{scale * height} pixels; it is counted in pixels of the result"
        )
    x, columns = _span(window.x, window.width, scale, width, side)
    y, rows = _span(window.y, window.height, scale, height, side)
    return Box(x, y, columns, rows)


def _span(start: int, length: int, scale: int, size: int, side: int) -> tuple[int, int]:
    """Start and length of the patch along one axis."""
    first, end = start // scale, -(-(start + length) // scale)
    if end - first > side:
        raise UsageError(
            f"--window is {length} pixels wide, which come from {end - first} pixels of the image "
            f"and do not fit into --patch {side}; make that larger or the window smaller"
        )
    side = min(side, size)
    return min(max((first + end) // 2 - side // 2, 0), size - side), side
