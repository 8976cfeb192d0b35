"""What one model of a repository is, before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvmsr.errors import UsageError
from dvmsr.export.triton.config import Message

VERSION = "1"
"""The folder of a model's only version."""


@dataclass(frozen=True)
class Request:
    """What is asked for of every model."""

    mounted_at: Path
    """The repository's folder as the server sees it."""
    max_batch: int | None = None
    """Most inputs that are computed at once; None for what suits the model."""
    instances: int = 1
    """How often each model is loaded."""


@dataclass(frozen=True)
class Layout:
    """A model of a repository."""

    name: str
    config: Message
    files: Mapping[str, Path | bytes]
    """By their places below the model's folder: what to copy, or the content itself."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of its backend, by name, that the server has to be started with."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "name": self.name,
            "backend": self.config["backend"],
            "max_batch_size": self.config.get("max_batch_size"),
            "files": sorted(self.files),
            "backend_settings": dict(self.settings),
        }


def check_file(path: Path) -> None:
    """Whether a model's file is all there is of it, as far as that shows.

    Raises:
        UsageError: if its weights lie beside it.
    """
    beside = [path.with_name(f"{path.name}{end}") for end in (".data", "_data")]
    for other in beside:
        if other.is_file():
            raise UsageError(
                f"{path} has its weights in {other.name}; export it as one file of less than 2 GB"
            )
