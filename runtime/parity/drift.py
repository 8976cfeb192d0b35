"""Where inside two networks the values begin to differ by more than rounding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import UsageError
from dvmsr.runtime.backends.base import Enlarger

FP32_DRIFT = 3e-5
"""Relative difference beyond which a layer has drifted where both compute in FP32. Rounding alone
makes up to 2e-6 in the official network."""
HALF_DRIFT = 3e-2
"""The same where one computes in half precision, whose rounding makes up to 7e-3 there."""
_AT_ONCE = 12
"""Layers that are kept in memory together; the networks run once for each such group."""


@dataclass(frozen=True)
class LayerDifference:
    """How far one value inside two networks is apart."""

    name: str
    max_abs: float
    relative: float
    """Root mean square of the difference over that of the second network's values."""


def common_layers(a: Enlarger, b: Enlarger) -> list[str]:
    """The values that both networks show under one name, in the order of computation.

    Raises:
        UsageError: if one does not show its layers, or they have none in common.
        MissingComponentError: if that needs a package that is not installed.
    """
    shown = set(b.layers())
    names = [name for name in a.layers() if name in shown]
    if not names:
        raise UsageError("the two networks have no layer in common; compare networks of one kind")
    return names


def compare_layers(
    a: Enlarger, b: Enlarger, image: NDArray[np.float32], names: Sequence[str]
) -> list[LayerDifference]:
    """The differences of the named layers for an image (B, 3, H, W).

    Raises:
        UsageError: if a layer has another shape in one than in the other.
        DvmsrError: if a network fails.
    """
    found = []
    for start in range(0, len(names), _AT_ONCE):
        group = names[start : start + _AT_ONCE]
        ours, theirs = a.layer_values(image, group), b.layer_values(image, group)
        found += [_difference(name, ours.pop(name), theirs.pop(name)) for name in group]
    return found


def first_drift(layers: list[LayerDifference], limit: float) -> str | None:
    """The first layer whose relative difference is beyond the limit, or not a number."""
    return next((layer.name for layer in layers if not layer.relative <= limit), None)


def _difference(name: str, ours: NDArray[Any], theirs: NDArray[Any]) -> LayerDifference:
    if ours.shape != theirs.shape:
        raise UsageError(
            f"layer {name} has shape {ours.shape} in one network and {theirs.shape} in the other; "
            "compare networks of one architecture"
        )
    difference = ours.astype(np.float64) - theirs
    error, size = (float(np.sqrt(np.mean(np.square(x, dtype=float)))) for x in (difference, theirs))
    relative = error / size if size else (np.inf if error else 0.0)
    return LayerDifference(name, float(np.abs(difference).max()), relative)
