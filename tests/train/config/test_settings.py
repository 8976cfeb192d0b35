"""Settings of a run: what is refused. What a resumed run may change: test_train_loop."""

from __future__ import annotations

from typing import Any

import pytest

from dvmsr.errors import UsageError
from dvmsr.train.config.settings import Settings


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"steps": 1, "minutes": 1}, {"steps": 0}, {"minutes": -1}, {"steps": 1, "lr": 0},
        {"steps": 1, "batch": 0}, {"steps": 1, "ema": 1}, {"steps": 1, "seed": -1},
        {"steps": 1, "lr": float("nan")}, {"steps": 1, "save_every": 0},
        {"steps": 10**400}, {"steps": 1, "seed": 2**63}, {"steps": 1, "warmup": -1},
        {"steps": 1, "beta1": 1}, {"steps": 1, "beta2": -0.1}, {"steps": 1, "milestones": ""},
    ],
)  # fmt: skip
def test_nonsense_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        Settings(**settings)


@pytest.mark.parametrize("unit", ["steps", "minutes"])
def test_the_length_is_whichever_is_given(unit: str) -> None:
    settings = Settings(**{unit: 7})
    assert (settings.unit, settings.length) == (unit, 7)
