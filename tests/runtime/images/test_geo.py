"""A place on earth stays where it is: the old and the new file say the same of each point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvmsr.runtime.images.geo import enlarged, is_point

SCALE_TAG, TIE, MATRIX, RPC = 33550, 33922, 34264, 50844
numbers = st.floats(-1e6, 1e6)
scales = st.sampled_from([2, 3, 4])


def place_in_new(x: float, scale: int, point: bool) -> float:
    """Where a point of the old picture lies in the new one: what is counted from the corner is
    multiplied; what is counted from the middle is so half a pixel further on."""
    return scale * (x + 0.5) - 0.5 if point else scale * x


@given(
    st.lists(numbers, min_size=6, max_size=6),
    st.tuples(st.floats(0.01, 1e3), st.floats(0.01, 1e3)),
    st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)),
    scales,
    st.booleans(),
)
def test_tie_point_and_pixel_scale(
    tie: list[float],
    size: tuple[float, float],
    place: tuple[float, float],
    scale: int,
    point: bool,
) -> None:
    def on_earth(tie: list[float], size: list[float], place: list[float]) -> list[float]:
        x = tie[3] + (place[0] - tie[0]) * size[0]
        return [x, tie[4] - (place[1] - tie[1]) * size[1]]

    new_tie = enlarged(TIE, tie, scale, point)
    new_size = enlarged(SCALE_TAG, [*size, 7.0], scale, point)
    new_place = [place_in_new(one, scale, point) for one in place]
    assert (new_tie[2:], new_size[2]) == (tie[2:], 7.0)
    np.testing.assert_allclose(
        on_earth(new_tie, new_size, new_place),
        on_earth(tie, list(size), list(place)),
        atol=1e-3,
        rtol=1e-9,
    )


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=16, max_size=16),
    st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(-10, 10)),
    scales,
    st.booleans(),
)
def test_transformation(
    matrix: list[float], place: tuple[float, float, float], scale: int, point: bool
) -> None:
    new = np.reshape(enlarged(MATRIX, matrix, scale, point), (4, 4))
    old = np.reshape(matrix, (4, 4))
    new_place = [place_in_new(one, scale, point) for one in place[:2]]
    np.testing.assert_allclose(
        new[:3] @ [*new_place, place[2], 1], old[:3] @ [*place, 1], atol=1e-5, rtol=1e-9
    )


def test_several_tie_points() -> None:
    ties = [0.0, 0.0, 0.0, 5.0, 6.0, 0.0, 10.0, 20.0, 0.0, 7.0, 8.0, 0.0]
    assert enlarged(TIE, ties, 4, False) == [0, 0, 0, 5, 6, 0, 40, 80, 0, 7, 8, 0]
    assert enlarged(TIE, ties, 4, True) == [1.5, 1.5, 0, 5, 6, 0, 41.5, 81.5, 0, 7, 8, 0]


@pytest.mark.parametrize("point", [False, True])
def test_rational_polynomials_count_from_the_middle(point: bool) -> None:
    """(line - offset) / scale is what their polynomials give of a place on earth."""
    old = [float(k + 1) for k in range(92)]
    new = enlarged(RPC, old, 4, point)
    for offset, size in ((2, 7), (3, 8)):
        line = 123.0
        before = (line - old[offset]) / old[size]
        assert (place_in_new(line, 4, True) - new[offset]) / new[size] == pytest.approx(before)
    changed = {k for k in range(92) if new[k] != old[k]}
    assert changed == {2, 3, 7, 8}


def test_intergraphs_matrix_is_one_like_the_other() -> None:
    matrix = [float(k) for k in range(16)]
    assert enlarged(33920, matrix, 4, True) == enlarged(MATRIX, matrix, 4, True)


@pytest.mark.parametrize("tag", [SCALE_TAG, TIE, MATRIX, 33920, RPC])
@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_too_few_values_are_no_reason_to_fail(tag: int, count: int) -> None:
    assert len(enlarged(tag, [1.0] * count, 4, True)) == count


def test_is_point() -> None:
    assert not is_point([])
    assert not is_point([1, 1, 0, 1, 1025, 0, 1, 1])
    assert is_point([1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 2])
    assert not is_point([1, 1, 0, 1, 1025])
