"""The shapes that the inputs of a network of others may have in an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.export.trt.request import Sizes
from dvmsr.runtime.backends.trt.profiles import InputProfile, in_words

Declared = Mapping[str, tuple[int | str, ...]]
"""Shapes of inputs; axes of one name always have one size, which may change."""
Axis = tuple[str, int]
"""Of an input, counted from 0."""


@dataclass(frozen=True)
class _Range:
    low: int
    usual: int
    high: int


def profiles(
    path: Path,
    declared: Declared,
    examples: Mapping[str, tuple[int, ...]],
    asked: Mapping[str, Sizes],
) -> tuple[dict[str, InputProfile], list[str]]:
    """The shapes of every input, and the names of axes whose sizes were not all given.

    What is not given follows from the example: it is the usual size, twice as much is taken, and
    half of it where 8 divides that, since networks with windows or patches take multiples alone;
    of a batch 1 is. What is given lies in between. Where there is no example, what is given stands
    for it.

    Args:
        path: of the model, for messages.
        examples: shapes of inputs that the model was made with, as far as it tells.
        asked: what was given, by `--min`, `--opt` and `--max`.

    Raises:
        UsageError: if what was given does not fit the model or itself, or is too little.
    """
    axes: dict[str, list[Axis]] = {}
    for name, shape in declared.items():
        for axis, size in enumerate(shape):
            if isinstance(size, str):
                axes.setdefault(size, []).append((name, axis))
    given = {
        option: _by_label(option, _by_name(path, declared, option, sizes), declared)
        for option, sizes in asked.items()
    }
    ranges, assumed = {}, []
    for label, places in axes.items():
        sizes = {option: found[label] for option, found in given.items() if label in found}
        name, axis = places[0]
        example = next((examples[n][a] for n, a in places if n in examples), None)
        ranges[label] = _range(path, label, name, declared[name], sizes, example)
        if len(sizes) < 3:
            assumed.append(label)
    return {name: _profile(shape, ranges) for name, shape in declared.items()}, assumed


def axes_at(declared: Declared, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The sizes of the axes that may change, by their names, where inputs have these shapes."""
    return {
        label: size
        for name, shape in declared.items()
        for label, size in zip(shape, shapes[name], strict=True)
        if isinstance(label, str)
    }


def _by_name(
    path: Path, declared: Declared, option: str, sizes: Sizes
) -> dict[str, tuple[int, ...]]:
    """The shapes given with one option, checked against what the model declares."""
    if not isinstance(sizes, Mapping):
        if len(declared) != 1:
            raise UsageError(
                f"{path} takes {', '.join(declared) or 'no inputs'}; say whose shape {option} "
                f"{in_words(sizes)} is, as in {option} {next(iter(declared), 'x')}:1x3x64x64"
            )
        sizes = {next(iter(declared)): sizes}
    for name, shape in sizes.items():
        if name not in declared:
            raise UsageError(f"{path} has no input {name}; it takes {', '.join(declared)}")
        wanted = declared[name]
        words = f"{option} gives {name} the shape {in_words(shape)}, but {path} takes"
        if len(shape) != len(wanted):
            raise UsageError(f"{words} {in_words(wanted)}; give {len(wanted)} sizes")
        for size, fixed in zip(shape, wanted, strict=True):
            if isinstance(fixed, int) and size != fixed:
                raise UsageError(f"{words} {in_words(wanted)}; {fixed} is fixed in it")
    return dict(sizes)


def _by_label(
    option: str, shapes: Mapping[str, tuple[int, ...]], declared: Declared
) -> dict[str, int]:
    found: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        for size, label in zip(shape, declared[name], strict=True):
            if not isinstance(label, str):
                continue
            before, where = found.setdefault(label, (size, name))
            if before != size:
                raise UsageError(
                    f"{option} gives the {label} of {where} {before} and that of {name} {size}; "
                    "axes of one name have one size"
                )
    return {label: size for label, (size, _) in found.items()}


def _range(
    path: Path,
    label: str,
    name: str,
    shape: tuple[int | str, ...],
    given: Mapping[str, int],
    example: int | None,
) -> _Range:
    usual = example
    if example is None:
        usual = given.get("--opt", given.get("--max", given.get("--min")))
    if usual is None:
        raise UsageError(
            f"{path} does not tell which {label} is usual; say so with --opt {name}:SHAPE, where "
            f"SHAPE is like {in_words(shape)}"
        )
    least = 1 if label == "batch" else usual // 2 if usual % 16 == 0 else usual
    low = given.get("--min", min(least, *given.values()) if given else least)
    high = given.get("--max", max(2 * usual, *given.values()) if given else 2 * usual)
    usual = given.get("--opt", min(max(usual, low), high))
    if not 1 <= low <= usual <= high:
        raise UsageError(
            f"the {label} must be at least 1 and grow from --min over --opt to --max, not "
            f"{low}, {usual}, {high}"
        )
    return _Range(low, usual, high)


def _profile(shape: tuple[int | str, ...], ranges: Mapping[str, _Range]) -> InputProfile:
    sizes = [ranges[n] if isinstance(n, str) else _Range(n, n, n) for n in shape]
    return InputProfile(
        min=tuple(size.low for size in sizes),
        opt=tuple(size.usual for size in sizes),
        max=tuple(size.high for size in sizes),
    )
