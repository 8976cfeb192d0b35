"""The networks that a service offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.runtime.upscaler import Upscaler
from dvmsr.weights.registry import MODELS, STUDENTS

DEFAULT = tuple(STUDENTS)


def open_models(models: Sequence[str], threads: int | None = None) -> dict[str, Upscaler]:
    """Each by the name that clients give: that of a bundled one, or of the file without folders.

    Raises:
        UsageError: if two have one name, or as `Upscaler.from_file`, like the other errors.
    """
    opened: dict[str, Upscaler] = {}
    for model in models:
        name = model if model in MODELS else Path(model).name
        if name in opened:
            raise UsageError(f"two models are called {name}; rename one of them, or leave it out")
        opened[name] = Upscaler.from_file(model, threads=threads)
    return opened
