"""Shapes that an engine takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dvmsr.errors import UsageError

Shape = tuple[int, int, int]
"""Batch, height and width."""


@dataclass(frozen=True)
class InputProfile:
    """The shapes of one input that an engine takes: any from `min` to `max`, fastest at `opt`.

    Raises:
        ValueError: unless 1 <= min <= opt <= max on each axis.
    """

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        for low, opt, high in zip(self.min, self.opt, self.max, strict=True):
            if not 1 <= low <= opt <= high:
                raise ValueError(f"{low}, {opt}, {high}")

    def contains(self, shape: Sequence[int]) -> bool:
        """Whether an engine takes an input of that shape."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )

    def __str__(self) -> str:
        low, opt, high = map(in_words, (self.min, self.opt, self.max))
        return low if low == high else f"{low} to {high}, tuned for {opt}"


def in_words(shape: Sequence[int | str]) -> str:
    """`1x3x64x64` or `batchx3x64x64`; `one value` for a scalar."""
    return "x".join(map(str, shape)) or "one value"


@dataclass(frozen=True)
class Profile:
    """The pictures that an engine of DVMSR takes: any (B, 3, H, W) from `min` to `max`, fastest at
    `opt`.

    Raises:
        UsageError: unless 1 <= min <= opt <= max in each of batch, height and width.
    """

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        for axis, sizes in zip(
            ("batch", "height", "width"),
            zip(self.min, self.opt, self.max, strict=True),
            strict=True,
        ):
            if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise UsageError(
                    f"the {axis} must be at least 1 and grow from min over opt to max, "
                    f"not {', '.join(map(str, sizes))}"
                )

    def contains(self, shape: Shape) -> bool:
        """Whether an engine takes this batch, height and width."""
        return all(a <= n <= b for a, n, b in zip(self.min, shape, self.max, strict=True))

    @classmethod
    def of(cls, inputs: Mapping[str, InputProfile]) -> Profile:
        """What `inputs` gives as a profile."""
        only = inputs["input"]
        low, opt, high = ((b, h, w) for b, _, h, w in (only.min, only.opt, only.max))
        return cls(low, opt, high)

    def inputs(self) -> dict[str, InputProfile]:
        """The same as `EngineInfo.profiles`."""
        low, opt, high = ((b, 3, h, w) for b, h, w in (self.min, self.opt, self.max))
        return {"input": InputProfile(low, opt, high)}

    def __str__(self) -> str:
        return f"{in_words(self.min)} to {in_words(self.max)} (batch x height x width)"
