"""Colours and lettering of the pictures that commands draw; Pillow only."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

INK, FAINT, PAPER = "#202124", "#9aa0a6", "#ffffff"
SERIES = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e")
"""Colours that are told apart, in the order of their use."""
_INFERNO = (
    *((0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85)),
    *((227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)),
)


def inferno(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in [0, 1] (...) -> RGB (..., 3): black, purple, orange, light yellow."""
    places = np.linspace(0, 1, len(_INFERNO))
    channels = [np.interp(values, places, channel) for channel in zip(*_INFERNO, strict=True)]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


@cache
def font(size: int) -> Any:
    """The typeface that comes with Pillow."""
    return ImageFont.load_default(size)
