"""Inputs drawn from captured statistics stop where the real ones do."""

from __future__ import annotations

import json
from pathlib import Path

import captured
import numpy as np
import pytest
from shared import REPOSITORY, official_weights

WEIGHTS = {"student": REPOSITORY / "dvmsr" / "weights" / "dvmsr_x4.safetensors"}
NETWORKS = ("official", "student")


def made_up(seed: int = 0) -> dict[str, np.ndarray]:
    """A layer whose slow channels have the small delta: (L, D) = (3000, 64), N = 8."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-3, 0, 64)
    return {
        "delta": size * rng.lognormal(0, 0.3, (3000, 64)),
        "A": -(size[:, None] ** 0.5) * np.cumsum(rng.uniform(0.5, 1.5, (64, 8)), 1),
        "u": 2 * rng.standard_normal((3000, 64)),
        "B": 3 * rng.standard_normal((3000, 8)),
        "C": rng.standard_normal((3000, 8)),
    }


def drawn_delta(drawn: dict[str, np.ndarray]) -> np.ndarray:
    """After bias and softplus."""
    return np.logaddexp(0, drawn["delta"][0].astype(np.float64) + drawn["delta_bias"])


def test_draws_what_was_kept() -> None:
    real = made_up()
    layer = captured.statistics(**real)
    drawn = captured.draw(layer, 4000, seed=1)
    delta = drawn_delta(drawn)
    middle = captured.DELTA_LEVELS.index(0.5)
    assert np.median(delta, 0) == pytest.approx(layer.delta[:, middle], rel=0.06)
    assert (delta.max(0) <= real["delta"].max(0) * (1 + 1e-4)).all()
    assert np.abs(drawn["A"]).min(1) == pytest.approx(np.abs(real["A"]).min(1))
    assert drawn["u"].std() == pytest.approx(2, rel=0.02)
    assert drawn["B"].std() == pytest.approx(3, rel=0.02)
    for part, share in captured.left(real["delta"], real["A"]).items():
        assert captured.left(delta, drawn["A"])[part] == pytest.approx(share, abs=0.03)


def test_losing_the_correlation_would_show() -> None:
    """The measure that the drawn inputs are judged by tells a permutation of the channels."""
    real = made_up()
    mixed = np.random.default_rng(2).permutation(64)
    share = captured.left(real["delta"], real["A"])["pairs"]
    assert abs(captured.left(real["delta"], real["A"][mixed])["pairs"] - share) > 0.05


def test_is_the_same_for_the_same_seed() -> None:
    layer = captured.statistics(**made_up())
    one, same, other = (captured.draw(layer, 50, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["delta"], other["delta"])


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_stored_makes_sense(network: str) -> None:
    layers = captured.load()[network]
    assert len(layers) == 8
    for layer in layers:
        assert layer.delta.shape == (120, len(captured.DELTA_LEVELS))
        assert (np.diff(layer.delta, axis=1) >= 0).all()
        assert (layer.delta > 0).all()
        assert layer.ratios.shape == (16, len(captured.RATIO_LEVELS))
        assert (layer.ratios >= 1).all()
        drawn = captured.draw(layer, 100, 0)
        assert all(np.isfinite(values).all() for values in drawn.values())
        assert drawn["delta"].shape == (1, 100, 120)


def test_the_stored_levels_are_those_of_the_code() -> None:
    stored = json.loads(captured.FILE.read_text())
    assert tuple(stored["delta_levels"]) == captured.DELTA_LEVELS
    assert tuple(stored["ratio_levels"]) == captured.RATIO_LEVELS


def test_prints_the_mean_of_a_walk_back_over_all_layers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Decays of e^-delta: with 1 a token, 20 of them stay above 2^-30, with 2 a token, 10."""
    capture = pytest.importorskip("capture", reason="needs torch")
    monkeypatch.setattr(capture, "RANGES", (40, 80))
    layers = [{"delta": np.full((240, 32), step), "A": -np.ones((32, 4))} for step in (1.0, 2.0)]
    capture.walk_back("both", layers)
    assert capsys.readouterr().out.splitlines() == [
        "both, left over 40 tokens: pairs 0.375, warps 0.375",
        "both, left over 80 tokens: pairs 0.188, warps 0.188",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_stored_is_of_these_weights(network: str) -> None:
    """Captured again: the statistics are the stored ones, and what is left of the correction is as
    drawn, per layer."""
    capture = pytest.importorskip("capture", reason="needs torch")
    weights: Path = WEIGHTS.get(network) or official_weights("dvmsr_df2k")
    for real, layer in zip(capture.capture(weights), captured.load()[network], strict=True):
        now = captured.statistics(**real)
        # FP32 sums differ from machine to machine, and delta spans five decades.
        assert layer.delta == pytest.approx(now.delta, rel=0.02, abs=1e-6)
        assert layer.slowest == pytest.approx(now.slowest, rel=0.06)
        chunks = real["delta"][: len(real["delta"]) // 496 * 496].reshape(-1, 496, 120)
        some = chunks[:: len(chunks) // 40].reshape(-1, 120)
        drawn = captured.draw(layer, len(some), 0)
        for part, share in captured.left(some, real["A"]).items():
            found = captured.left(drawn_delta(drawn), drawn["A"])[part]
            assert found == pytest.approx(share, abs=0.08)
