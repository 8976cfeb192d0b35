"""The steps of the run, in the order in which they go, and what share of the time each has.
Needs Python alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CARRY = HERE / "carry"
"""What travels along (`carry.py` fills it)."""
INSTALL = 25.0
"""Seconds for the installation of dvmsr."""


@dataclass(frozen=True)
class Step:
    """One script and its share of the time."""

    name: str
    parts: tuple[str, ...]
    """`first`, `second`."""
    seconds: float
    """Its share where the parts have 7 and 6 minutes; other times are divided in these
    proportions."""
    script: str
    needs: tuple[str, ...] = ()
    """Packages besides `environment.NEEDED`."""
    awaits_mamba: bool = False
    """It measures against mamba-ssm, which is built in the background meanwhile."""


STEPS = (
    Step("build", ("first", "second"), 75, "build.py"),
    Step("facts", ("first",), 20, "facts.py"),
    Step("correct", ("first",), 90, "correctness.py"),
    Step("plugin", ("first",), 60, "plugin.py"),
    Step("scan", ("first",), 110, "scan.py", awaits_mamba=True),
    Step("sanitize", ("first",), 40, "sanitize.py"),
    Step(
        "models",
        ("second",),
        60,
        "models.py",
        ("onnxruntime", "torch", "safetensors", "onnx", "PIL", "typer"),
    ),
    Step("profile", ("second",), 50, "profiling.py"),
    Step("train", ("second",), 50, "training.py", ("torch", "safetensors", "PIL", "typer")),
    # Last: on a machine of its own mamba-ssm needs that long to build.
    Step("network", ("second",), 100, "network.py", ("torch", "safetensors"), awaits_mamba=True),
)
PARTS = ("first", "second")
NAMES = tuple(step.name for step in STEPS)


def chosen(names: list[str]) -> list[Step]:
    """The steps of these parts and names, each once.

    Raises:
        ValueError: if one is neither, or there is none.
    """
    known = f"first, second, {', '.join(NAMES)}"
    if not names:
        raise ValueError(f"name what to run: {known}")
    for name in names:
        if name not in (*PARTS, *NAMES):
            raise ValueError(f"{name} is no step; there are {known}")
    wanted = set(names)
    return [step for step in STEPS if wanted & {step.name, *step.parts}]


def minutes(steps: list[Step]) -> float:
    """That these steps take by default."""
    return (INSTALL + sum(step.seconds for step in steps)) / 60


def share(step: Step, remaining: list[Step], left: float) -> float:
    """Seconds that a step gets of those that are left for it and those after it."""
    return left * step.seconds / sum(one.seconds for one in remaining)


def arguments(step: Step, work: Path, checkpoint: str, rlfn: str | None) -> list[str]:
    """Of its script, besides those that all have."""
    photographs = sorted(map(str, (CARRY / "photographs").glob("*.tar")))
    validation = CARRY / "validation"
    own = {
        "build": ["--probes", str(work / "probes.so")],
        "network": [checkpoint, *([rlfn] if rlfn else [])],
        "models": [checkpoint],
        "profile": [checkpoint],
        "train": [
            *photographs, "--run", str(work / "training"),
            *(["--val", str(validation)] if validation.is_dir() else []),
        ],
    }  # fmt: skip
    return own.get(step.name, [])
