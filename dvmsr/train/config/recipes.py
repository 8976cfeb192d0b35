"""Named configurations: the paper's training, and its ablations.

A recipe is a set of options, named as on the command line; `network` holds fields of `DVMSRConfig`.
The rows of Tables 3 to 5 and the teacher are known by their parameter counts, which the tests
check. docs/distillation.md tells what is the paper's and what is a choice of ours.
"""

from typing import Any

from dvmsr.errors import UsageError
from dvmsr.train.config.settings import DISTANCES, POSITIONS

PAPER: dict[str, Any] = {
    "steps": 500_000, "batch": 128, "patch": 64, "schedule": "multistep", "optimiser": "adam",
    "lr": 2e-4, "warmup": 0, "clip": 0.0, "ema": 0.999, "dt_init": "official",
}  # fmt: skip
"""Patches are 64x64 LR pixels: 256x256 HR pixels at scale 4."""

TABLE_3 = {
    "1-1-1-1": (1, 1, 1, 1),
    "2-2-2-2": (2, 2, 2, 2),
    "2-2-9-2": (2, 2, 9, 2),
    "6-6-6-6": (6, 6, 6, 6),
}
"""ViMMs in each RSSB."""
TABLE_4 = (2, 4, 6, 10)
"""RSSBs."""
TABLE_5 = (150, 180, 192, 210)
"""Channels."""
WEIGHTS = {"1to1": 1.0, "5to1": 5.0}
"""lambda_dis of Table 7, where lambda_1 is 1."""


def _ablation(channels: int = 180, depths: tuple[int, ...] = (2,) * 4) -> dict[str, Any]:
    return {**PAPER, "network": _large(channels, depths)}


def _large(channels: int, depths: tuple[int, ...]) -> dict[str, Any]:
    return {"channels": channels, "depths": depths, "upsampler": "pixelshuffle"}


def _distilled(
    position: str = "end", distance: str = "l1", lambda_dis: float = 1.0
) -> dict[str, Any]:
    return {
        **PAPER,
        "preset": "student",
        "position": position,
        "distance": distance,
        "lambda_dis": lambda_dis,
        "lambda_1": 1.0,
    }


RECIPES: dict[str, dict[str, Any]] = {
    "paper": {**PAPER, "preset": "student"},
    "paper-teacher": {**PAPER, "preset": "teacher"},
    "paper-distilled": _distilled(),
    **{f"table3-{name}": _ablation(depths=depths) for name, depths in TABLE_3.items()},
    **{f"table4-rssb{count}": _ablation(depths=(2,) * count) for count in TABLE_4},
    **{f"table5-channels{count}": _ablation(channels=count) for count in TABLE_5},
    "table6-unidirectional": {**PAPER, "network": {"bidirectional": False}},
    "table6-bidirectional": {**PAPER, "network": {"bidirectional": True}},
    **{
        f"table7-{position}-{distance}-{name}": _distilled(position, distance, weight)
        for position in POSITIONS
        for distance in DISTANCES
        for name, weight in WEIGHTS.items()
    },
    "table8-teacher": {**PAPER, "preset": "teacher"},
    "table8-student": {**PAPER, "preset": "student"},
    "table8-distilled": _distilled(),
}


def recipe(name: str) -> dict[str, Any]:
    """The options of a recipe.

    Raises:
        UsageError: if there is none of that name.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise UsageError(f"no recipe {name!r}; there are {', '.join(RECIPES)}") from None
