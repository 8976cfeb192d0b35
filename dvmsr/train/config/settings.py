"""How to train, as plain data, and what of it a resumed run may change; needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvmsr.errors import UsageError
from dvmsr.train.config.schedule import MILESTONES, Schedule

LENGTHS = ("steps", "minutes")
MOST = 1e12
HELP = "help"
REPORTS = ("log_every", "save_every", "validate_every")
FREE = (*REPORTS, "keep", "pictures", "tensorboard", "compile")
"""What a resumed run may change at will."""
POSITIONS = ("end", "mid", "both")
DISTANCES = ("l1", "l2")
DT_INITS = ("mamba", "official")
OPTIMISERS = ("muon", "adam")
PRECISIONS = ("fp32", "fp16", "bf16")


def setting(default: Any, what: str) -> Any:
    """A field that is an option of the command lines, too, with what their help says of it."""
    return field(default=default, metadata={HELP: what})


@dataclass(frozen=True)
class Settings:
    """How to train. Exactly one of `steps` and `minutes` bounds the run and drives the schedule.

    Raises:
        UsageError: if a value makes no sense.
    """

    steps: int | None = setting(None, "Length of the run in steps.")
    minutes: float | None = setting(None, "Length of the run in minutes, all sessions together.")
    batch: int = setting(8, "Patches per step.")
    patch: int = setting(32, "Side of a low-resolution patch in pixels.")
    optimiser: str = setting("muon", "muon (and Adam for what is no matrix), or adam.")
    beta1: float = setting(0.9, "Share of Adam's mean of gradients that stays at each step.")
    beta2: float = setting(0.99, "The same of its mean of squares.")
    lr: float = setting(2e-3, "Peak learning rate.")
    schedule: str = setting("cosine", "cosine (to zero) or multistep (halve at milestones).")
    milestones: str = setting(MILESTONES, "Where multistep halves, as fractions of the run.")
    warmup: int = setting(100, "Steps over which the rate grows from near zero.")
    clip: float = setting(0.5, "Largest norm of the gradient of all weights together; 0: any.")
    ema: float = setting(0.999, "Decay per step of the averaged weights, which are what is kept.")
    augment: bool = setting(True, "Turn and mirror patches at random.")
    seed: int = setting(0, "Seed of weights, patches and order.")
    dt_init: str = setting("mamba", "How delta's projection begins: mamba, or official (reset).")
    precision: str = setting("fp32", "Of the layers: fp32, bf16 or fp16 (the scan in FP32).")
    log_every: int = setting(100, "Steps between log rows.")
    save_every: int = setting(500, "Steps between resume states.")
    validate_every: int = setting(1000, "Steps between validations, with checkpoints.")
    keep: int = setting(3, "Checkpoints kept besides best and last.")
    pictures: int = setting(0, "Upscaled images of --val to write at each validation.")
    tensorboard: bool = setting(False, "Write curves and pictures for TensorBoard, too.")
    compile: bool = setting(False, "Compile the blocks with torch.compile; takes a minute or more.")

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("give either --steps or --minutes")
        for name in (*LENGTHS, "batch", "patch", "lr", *REPORTS):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MOST:
                raise UsageError(
                    f"{option(name)} must be positive and at most {MOST:g}, not {value}"
                )
        _check_amounts(self, "clip", "keep", "pictures")
        _check_choices(self, optimiser=OPTIMISERS, precision=PRECISIONS, dt_init=DT_INITS)
        for name in ("ema", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"{option(name)} must be at least 0 and below 1, not {getattr(self, name)}"
                )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be at least 0 and below 2**63, not {self.seed}")
        Schedule(self.schedule, self.warmup, self.milestones)

    @property
    def unit(self) -> str:
        """What bounds the run, `steps` or `minutes`."""
        return "steps" if self.minutes is None else "minutes"

    @property
    def length(self) -> float:
        """How many of them."""
        return float(getattr(self, self.unit))


@dataclass(frozen=True)
class Distillation:
    """What a student learns from its teacher; see `dvmsr.train.objective`.

    Raises:
        UsageError: if a value makes no sense.
    """

    position: str = setting("end", "Compare end (the output), mid (every RSSB) or both.")
    distance: str = setting("l1", "To the teacher: l1 or l2, means over all elements.")
    lambda_dis: float = setting(1.0, "Weight of the distance to the teacher.")
    lambda_1: float = setting(1.0, "Weight of the L1 distance to the photographs.")
    teacher_precision: str = setting("fp32", "What the teacher computes in: fp32, fp16 or bf16.")

    def __post_init__(self) -> None:
        _check_choices(self, position=POSITIONS, distance=DISTANCES, teacher_precision=PRECISIONS)
        _check_amounts(self, "lambda_dis", "lambda_1")
        if not self.lambda_dis + self.lambda_1:
            raise UsageError("--lambda-dis and --lambda-1 must not both be 0")


def _check_choices(settings: object, **choices: Sequence[str]) -> None:
    for name, known in choices.items():
        value = getattr(settings, name)
        if value not in known:
            raise UsageError(f"{option(name)} must be one of {', '.join(known)}, not {value!r}")


def _check_amounts(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= MOST:
            raise UsageError(f"{option(name)} must be from 0 to {MOST:g}, not {value}")


def check_resumed(out: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Whether the run in `out`, begun with the settings `then`, may go on with those of `now`.

    It may become longer. How often it logs, saves and validates is free. All else must be equal,
    or the result would depend on where the run was interrupted.

    Args:
        then: settings by their names.
        now: the same names.

    Raises:
        UsageError: if it may not.
    """
    for name, value in now.items():
        before = then.get(name, value)  # a setting that came later has kept its default
        if name in FREE or value == before:
            continue
        remedy = "to go on, or start anew in another --output"
        if name not in LENGTHS:
            raise UsageError(
                f"the run in {out} has {option(name)} {before}, not {value}; "
                f"leave {option(name)} out {remedy}"
            )
        if before is None or value is None:
            unit = next(name for name in LENGTHS if then[name] is not None)
            raise UsageError(
                f"the run in {out} is bounded by {option(unit)} {then[unit]}; "
                f"give {option(unit)} or leave the length out {remedy}"
            )
        if value < before:
            raise UsageError(
                f"the run in {out} has {option(name)} {before}, which cannot become {value}; "
                f"give more or leave {option(name)} out {remedy}"
            )


def option(name: str) -> str:
    """The command's option for a setting."""
    return f"--{name.replace('_', '-')}"
