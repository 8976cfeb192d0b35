"""Colours of videos against the formulas in FP64."""

from __future__ import annotations

import numpy as np
import pytest
from clips import fp64_planes, fp64_rgb
from hypothesis import given, settings
from hypothesis import strategies as st

from dvmsr.runtime.video import yuv
from dvmsr.runtime.video.yuv import Coding, Layout

SUBSAMPLINGS = {"444": (False, False), "422": (False, True), "420": (True, True)}
codings = st.builds(
    Coding,
    st.builds(
        Layout,
        st.just("yuv"),
        st.sampled_from([8, 10, 12]),
        st.sampled_from([*SUBSAMPLINGS.values()]),
    ),
    st.sampled_from([1, 6, 9]),
    st.booleans(),
)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=40, deadline=None)
@given(codings, sizes, st.integers(0, 2**32 - 1))
def test_to_rgb(coding: Coding, size: tuple[int, int], seed: int) -> None:
    """Within a step of 16 bits and what FP32 adds to it."""
    rng = np.random.default_rng(seed)
    layout = coding.layout
    planes = tuple(
        rng.integers(0, 2**layout.bits, shape, layout.dtype) for shape in layout.shapes(*size)
    )
    expected = fp64_rgb(planes, layout.bits, coding.matrix, coding.full)
    assert np.abs(coding.to_rgb(planes) - 65535 * expected).max() <= 0.6


@settings(max_examples=40, deadline=None)
@given(codings, sizes, st.integers(0, 2**32 - 1))
def test_from_rgb(coding: Coding, size: tuple[int, int], seed: int) -> None:
    """Rounded once: within half a step, and 1/100 for FP32."""
    rgb = np.random.default_rng(seed).integers(0, 65536, (*size, 3), np.uint16)
    layout = coding.layout
    planes = coding.from_rgb(rgb)
    shapes = [plane.shape for plane in planes]
    assert shapes == layout.shapes(*size)
    expected = fp64_planes(rgb / 65535, shapes, layout.bits, coding.matrix, coding.full)
    for plane, values in zip(planes, expected, strict=True):
        clipped = np.clip(values, 0, 2**layout.bits - 1)
        assert plane.dtype == layout.dtype
        assert np.abs(plane - clipped).max() <= 0.51


@pytest.mark.parametrize("rows", [2, 4])
def test_bands_of_rows_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = np.random.default_rng(0).integers(0, 65536, (9, 7, 3), np.uint16)
    coding = Coding(Layout("yuv", 10, (True, True)), 9)
    whole = coding.from_rgb(rgb)
    monkeypatch.setattr(yuv, "_ROWS", rows)
    for plane, expected in zip(coding.from_rgb(rgb), whole, strict=True):
        np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("kind", ["rgb", "gray"])
def test_without_chroma_nothing_is_lost(kind: str, bits: int) -> None:
    layout = Layout(kind, bits)
    rng = np.random.default_rng(bits)
    shapes = [(5, 6)] * (3 if kind == "rgb" else 1)
    planes = tuple(rng.integers(0, 2**bits, shape, layout.dtype) for shape in shapes)
    again = Coding(layout, full=True).from_rgb(Coding(layout, full=True).to_rgb(planes))
    for plane, expected in zip(again, planes, strict=True):
        np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize(("name", "halved"), SUBSAMPLINGS.items(), ids=SUBSAMPLINGS)
def test_names(name: str, halved: tuple[bool, bool]) -> None:
    assert Layout("yuv", 8, halved).name == f"yuv{name}p"
    assert Layout("yuv", 10, halved).name == f"yuv{name}p10le"
    assert (Layout("rgb", 8).name, Layout("gray", 12).name) == ("gbrp", "gray12le")
