"""Windows as the command line takes them, and patches around them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvmsr.errors import UsageError
from dvmsr.lam.window import Box, parse_window, patch_around


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("160,120,16", Box(160, 120, 16, 16)),
        ("160,120", Box(160, 120, 16, 16)),
        (" 0, 0, 1 ", Box(0, 0, 1, 1)),
    ],
)
def test_windows(text: str, expected: Box) -> None:
    assert parse_window("--window", text) == expected


@pytest.mark.parametrize(
    "text",
    *[["", "5", "1,2,3,4", "a,b,c", "1,2,0", "-1,2,3", "1.5,2,3", "1,2,", "9" * 5000 + ",1,1"]],
    ids=lambda text: text[:9],
)
def test_refuses_what_is_no_window(text: str) -> None:
    with pytest.raises(UsageError, match="--window takes X,Y,SIZE") as error:
        parse_window("--window", text)
    assert len(str(error.value)) < 200


def test_the_window_is_in_the_middle_of_its_patch() -> None:
    """16 pixels of a result four times as large are 4 of the image, 30 more on either side."""
    assert patch_around(Box(400, 480, 16, 16), 4, 300, 451, 64) == Box(70, 90, 64, 64)


def test_the_patch_stays_inside_the_image() -> None:
    assert patch_around(Box(0, 1184, 16, 16), 4, 300, 451, 64) == Box(0, 236, 64, 64)
    assert patch_around(Box(40, 40, 16, 16), 4, 30, 50, 64) == Box(0, 0, 50, 30)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_the_patch_holds_the_window(data: st.DataObject) -> None:
    scale = data.draw(st.integers(1, 4))
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    side = data.draw(st.integers(1, 50))
    length = data.draw(st.integers(1, scale * min(height, width)))
    x = data.draw(st.integers(0, scale * width - length))
    y = data.draw(st.integers(0, scale * height - length))
    window = Box(x, y, length, length)
    try:
        patch = patch_around(window, scale, height, width, side)
    except UsageError as error:
        assert "do not fit" in str(error)
        assert -(-length // scale) + 1 > side
        return
    assert (patch.width, patch.height) == (min(side, width), min(side, height))
    assert 0 <= patch.x <= width - patch.width and 0 <= patch.y <= height - patch.height
    inner = window.inside(patch.times(scale))
    assert inner.x >= 0 and inner.x + length <= scale * patch.width
    assert inner.y >= 0 and inner.y + length <= scale * patch.height


@pytest.mark.parametrize("window", [Box(1789, 0, 16, 16), Box(0, 1200, 1, 1)], ids=str)
def test_refuses_a_window_outside_the_result(window: Box) -> None:
    with pytest.raises(UsageError, match="beyond the result, which has 1804x1200 pixels"):
        patch_around(window, 4, 300, 451, 64)


def test_refuses_a_window_larger_than_the_patch() -> None:
    with pytest.raises(UsageError, match="do not fit into --patch 64"):
        patch_around(Box(2, 0, 256, 256), 4, 300, 451, 64)
    assert patch_around(Box(0, 0, 256, 256), 4, 300, 451, 64) == Box(0, 0, 64, 64)
