"""Learning-rate factors against hand-computed values."""

from __future__ import annotations

import pytest

from dvmsr.errors import UsageError
from dvmsr.train.config.schedule import Schedule


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0, 1), (0.25, 0.8535533905932737), (0.5, 0.5), (1, 0), (1.5, 0), (-1, 1)],
)
def test_cosine_falls_from_one_to_zero(progress: float, factor: float) -> None:
    assert Schedule("cosine", warmup=0).factor(0, progress) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0, 1), (0.499, 1), (0.5, 1 / 2), (0.8, 1 / 4), (0.9, 1 / 8), (0.95, 1 / 16), (1, 1 / 16)],
)
def test_multistep_halves_at_its_milestones(progress: float, factor: float) -> None:
    assert Schedule("multistep", warmup=0).factor(0, progress) == factor


@pytest.mark.parametrize(("progress", "factor"), [(0.2, 1), (0.25, 1 / 2), (0.7, 1 / 4)])
def test_milestones_may_be_others(progress: float, factor: float) -> None:
    assert Schedule("multistep", 0, "0.25, 0.7").factor(0, progress) == factor


@pytest.mark.parametrize("kind", ["cosine", "multistep"])
def test_warmup_is_linear_in_steps_and_starts_above_zero(kind: str) -> None:
    schedule = Schedule(kind, warmup=9)
    factors = [schedule.factor(step, 0) for step in range(12)]
    assert factors == pytest.approx([*(i / 10 for i in range(1, 11)), 1, 1])


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "linear"}, {"warmup": -1}, {"milestones": "0.5,x"}, {"milestones": "0.5,1"},
        {"milestones": "nan"},
    ],
)  # fmt: skip
def test_nonsense_is_refused(arguments: dict) -> None:
    with pytest.raises(UsageError, match=r"--(schedule|warmup|milestones)"):
        Schedule(**arguments)
