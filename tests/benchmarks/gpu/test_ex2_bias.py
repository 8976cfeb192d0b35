"""The measured bias and what is derived from it."""

from __future__ import annotations

import ex2_bias
import numpy as np
import pytest


def off_by(ulp: float) -> dict[str, object]:
    """What facts.py reports of a device that is off by that much."""
    given = ex2_bias.exponents(0, 4000)
    exact = np.exp2(given.astype(np.float64)) + ulp * ex2_bias.ULP
    return ex2_bias.report(given, exact.astype(np.float32))


def test_exponents_fill_their_bins() -> None:
    given = ex2_bias.exponents(0, 1000)
    assert given.dtype == np.float32
    assert (given.min(1) >= np.float32(ex2_bias.EDGES[:-1])).all()
    assert (given.max(1) <= np.float32(ex2_bias.EDGES[1:])).all()


@pytest.mark.parametrize("ulp", [0.0, 0.25, -0.5, -2.0])
def test_finds_the_bias(ulp: float) -> None:
    found = off_by(ulp)
    assert found["largest_mean_ulp"] == pytest.approx(ulp, abs=0.03)
    assert found["largest_ulp"] == pytest.approx(abs(ulp) + 0.5, abs=0.01)


def test_biases_decays_between_the_edges_alone() -> None:
    measured = off_by(2.0)
    decays = np.array([0.0, 0.5, 2.0**-0.21, 2.0**-0.19, 0.999, 1 - 1e-7, 1.0, 1.5])
    off = (ex2_bias.biased(decays, measured) - decays) / ex2_bias.ULP
    assert off == pytest.approx([0, 0, 0, 2, 2, 2, 0, 0], abs=0.03)


def test_not_a_number_stays_one() -> None:
    assert np.isnan(ex2_bias.biased(np.array([np.nan]), off_by(1.0))).all()
