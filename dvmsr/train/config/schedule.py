"""Learning rates over the course of a run, as a factor of the base rate."""

import math
from dataclasses import dataclass

from dvmsr.errors import UsageError

KINDS = ("cosine", "multistep")
MILESTONES = "0.5,0.8,0.9,0.95"
"""Where `multistep` halves the rate, as fractions of the run (the paper's, of 500 k steps)."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over the first steps, then cosine to zero or halving at milestones.

    Raises:
        UsageError: for an unknown kind, a negative warm-up, or milestones outside the run.
    """

    kind: str = "cosine"
    warmup: int = 100
    """Steps over which the rate grows from near zero."""
    milestones: str = MILESTONES
    """Fractions of the run, with commas between them."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"--schedule must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.warmup < 0:
            raise UsageError(f"--warmup must not be negative, not {self.warmup}")
        try:
            sound = all(0 < fraction < 1 for fraction in self._fractions)
        except ValueError:
            sound = False
        if not sound:
            raise UsageError(
                f"--milestones must be fractions between 0 and 1 such as {MILESTONES}, "
                f"not {self.milestones!r}"
            )

    @property
    def _fractions(self) -> list[float]:
        return [float(part) for part in self.milestones.split(",")]

    def factor(self, step: int, progress: float) -> float:
        """The factor for the step number `step` (from 0).

        Args:
            progress: how much of the run is done, in steps or in time, 0 to 1.
        """
        progress = min(max(progress, 0.0), 1.0)
        if self.kind == "cosine":
            decay = 0.5 * (1 + math.cos(math.pi * progress))
        else:
            decay = 0.5 ** sum(progress >= milestone for milestone in self._fractions)
        return decay * min(1.0, (step + 1) / (self.warmup + 1))
