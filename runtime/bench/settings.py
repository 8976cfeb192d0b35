"""How models are measured, and where the figures go."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What `dvmsr bench` was asked for besides models and inputs; see its `--help`."""

    rounds: int
    warmup: int
    threads: int | None
    trust_engine: bool
    time_limit: float
    output: Path | None
    plot: Path | None
    overwrite: bool
    as_json: bool
