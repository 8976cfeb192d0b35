"""The picture of a difference: what is bright, what is dark, and how large it gets."""

from __future__ import annotations

import numpy as np
import pytest

from dvmsr.runtime.parity.heat_map import LONGEST_SIDE, draw
from dvmsr.utils.colormap import inferno


def picture(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    drawn = draw(a, b, ["title", "second line"])
    assert drawn.mode == "RGB"
    return np.asarray(drawn).astype(int)


def count(pixels: np.ndarray, colour: np.ndarray) -> int:
    return int((pixels == colour).all(-1).sum())


def test_colours_run_from_black_to_light() -> None:
    colours = inferno(np.linspace(0, 1, 50)).astype(int)
    assert colours.shape == (50, 3)
    assert (np.diff(colours.sum(-1)) > 0).all()


def test_only_what_differs_is_bright() -> None:
    a = np.full((1, 3, 400, 500), 0.5, np.float32)
    b = a.copy()
    b[0, 1, 100:110, 200:220] += 0.01
    pixels = picture(a, b)
    top, bottom = inferno(np.array([1.0, 0.0])).astype(int)
    bright = (pixels == top).all(-1)
    bright[bright.sum(1) < 5] = False  # the end of the bar
    rows, columns = np.nonzero(bright)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (10, 20)
    assert count(pixels, bottom) >= 400 * 500 - 200


def test_a_single_pixel_survives_reduction() -> None:
    a = np.zeros((1, 3, 30, 5 * LONGEST_SIDE), np.float32)
    b = a.copy()
    b[0, 0, 17, 1234] = 0.5
    pixels = picture(a, b)
    assert pixels.shape[1] < 2.2 * LONGEST_SIDE
    assert count(pixels, inferno(np.array(1.0))) >= 2  # it and the end of the bar


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_extremes(value: float) -> None:
    a = np.zeros((2, 3, 8, 8), np.float32)
    b = a.copy()
    b[0, 0, 2, 3] = value
    pixels = picture(a, b)
    assert (count(pixels, inferno(np.array(1.0))) > 0) == (value != 0)
