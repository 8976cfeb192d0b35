"""The description of what is carried between strips, and how strips become steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvmsr.config import DVMSRConfig
from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.strips import arrange, least_rows, states

STUDENT = DVMSRConfig()


def strips_of(*rows: int, width: int = 2) -> list[np.ndarray]:
    """Strips of an image in which every row has its own value."""
    image = np.broadcast_to(np.arange(sum(rows))[None, None, :, None], (1, 3, sum(rows), width))
    return np.split(image, np.cumsum(rows)[:-1], 2)


def join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts, 2)


def test_states_of_the_student() -> None:
    shapes = {state.name: state.shape(2, 50) for state in states(STUDENT)}
    assert len(shapes) == 1 + 4 * (2 * 2 + 2) + 2 + 1
    assert shapes["conv_first.rows"] == (2, 2, 50, 3)
    assert shapes["rssb3/vimm1/conv1d.tail"] == (2, 3, 120)
    assert shapes["rssb3/vimm1/scan.h"] == (2, 120, 16)
    assert shapes["rssb0/conv.rows"] == shapes["upsample/conv.rows"] == (2, 2, 50, 60)
    assert shapes["rssb0/skip.rows"] == (2, 1, 50, 60)
    assert shapes["skip.rows"] == (2, 5, 50, 60)
    assert {state.name for state in states(STUDENT) if state.always_fp32} == {
        f"rssb{i}/vimm{j}/scan.h" for i in range(4) for j in range(2)
    }


def test_states_of_an_upsampler_in_steps() -> None:
    config = replace(STUDENT, upsampler="pixelshuffle")
    columns = {state.name: state.sizes[1] for state in states(config) if "conv" in state.name}
    assert columns["upsample/conv1.rows"] == 2
    assert columns["conv_last.rows"] == 4
    assert "upsample/conv1.rows" not in {state.name for state in states(replace(config, scale=3))}


def test_a_bidirectional_network_cannot_stream() -> None:
    with pytest.raises(IncompatibleModelError, match="backward scans begin at the last pixel"):
        states(replace(STUDENT, bidirectional=True))


def test_the_first_strip_is_made_of_enough_rows() -> None:
    steps = list(arrange(strips_of(3, 3, 3, 0, 1, 2), 8, join))
    assert [(strip.shape[2], top, bottom) for strip, top, bottom in steps] == [
        (9, True, False),
        (1, False, False),
        (2, False, True),
    ]
    assert least_rows(STUDENT) == 8


@given(
    rows=st.lists(st.integers(0, 4), min_size=1, max_size=9).filter(any), least=st.integers(1, 9)
)
@settings(max_examples=60, deadline=None)
def test_steps_are_the_image(rows: list[int], least: int) -> None:
    strips = strips_of(*rows)
    steps = list(arrange(strips, least, join))
    np.testing.assert_array_equal(join([strip for strip, _, _ in steps]), join(strips))
    assert [top for _, top, _ in steps] == [True] + [False] * (len(steps) - 1)
    assert [bottom for _, _, bottom in steps] == [False] * (len(steps) - 1) + [True]
    assert all(strip.shape[2] for strip, _, _ in steps)
    assert len(steps) == 1 or steps[0][0].shape[2] >= least


def test_bad_strips() -> None:
    with pytest.raises(UsageError, match="no rows"):
        list(arrange([], 1, join))
    with pytest.raises(UsageError, match="no rows"):
        list(arrange(strips_of(0, 0), 1, join))
    with pytest.raises(UsageError, match=r"rows only, not \(1, 3, 1, 3\) after \(1, 3, 2, 2\)"):
        list(arrange([*strips_of(2), *strips_of(1, width=3)], 8, join))
