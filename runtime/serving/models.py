"""The networks that a service offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dvmsr.errors import UsageError
from dvmsr.runtime.serving.enlarging import Enlarged, Wish, enlarge
from dvmsr.runtime.upscaler import Upscaler
from dvmsr.weights.registry import MODELS, STUDENTS

DEFAULT = tuple(STUDENTS)


@dataclass(frozen=True)
class Description:
    """Of a network."""

    scale: int
    precision: str
    backend: str


class Models(Protocol):
    """Networks, and what computes with them."""

    described: Mapping[str, Description]
    """By the names that clients give; the first is the default."""
    at_once: int
    """Pictures that are computed at one time."""

    def enlarge(
        self, source: Path, wish: Wish, most_pixels: int, show: Callable[[int, int], None]
    ) -> Enlarged:
        """As `enlarging.enlarge`, in one of so many threads."""


class OpenModels:
    """`Models` that compute in this process."""

    at_once = 1

    def __init__(self, opened: Mapping[str, Upscaler]) -> None:
        self._opened = opened
        self.described: Mapping[str, Description] = {
            name: describe(each) for name, each in opened.items()
        }

    def enlarge(
        self, source: Path, wish: Wish, most_pixels: int, show: Callable[[int, int], None]
    ) -> Enlarged:
        return enlarge(self._opened[wish.model], source, wish, most_pixels, show)


def describe(upscaler: Upscaler) -> Description:
    """What clients are told of it."""
    return Description(upscaler.scale, upscaler.precision, upscaler.backend)


def named(models: Iterable[str]) -> dict[str, str]:
    """Each by the name that clients give: that of a bundled one, or of the file without folders.

    Raises:
        UsageError: if two have one name.
    """
    found: dict[str, str] = {}
    for model in models:
        name = model if model in MODELS else Path(model).name
        if name in found:
            raise UsageError(f"two models are called {name}; rename one of them, or leave it out")
        found[name] = model
    return found


def open_models(models: Iterable[str], threads: int | None = None) -> OpenModels:
    """
    Args:
        models: as of `named`, at least one.

    Raises:
        UsageError: if two have one name, or as `Upscaler.from_file`, like the other errors.
    """
    return OpenModels(
        {name: Upscaler.from_file(model, threads=threads) for name, model in named(models).items()}
    )
