"""What exported files say of the inputs that they were made with; others may have written it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.tensors import Example, Port
from dvmsr.utils.json_text import parse

EXAMPLE, RANGE, AXES = "dvmsr.example", "dvmsr.example_range", "dvmsr.dynamic"
"""Properties of an ONNX file: tables with an entry for each input."""
_MOST_VALUES = 2**40
"""Of an example, whose size is a mistake beyond."""
_HIGHEST = 1.7e38
"""Twice that is a number in FP32, too."""


def read_shapes(source: object, metadata: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the example inputs by name; none where the file does not tell.

    Args:
        source: what messages call the file.

    Raises:
        IncompatibleModelError: if they are no shapes.
    """
    table = _table(source, metadata, EXAMPLE, _is_shape)
    return {name: tuple(sizes) for name, sizes in table.items()}


def read_ranges(source: object, metadata: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """The lowest and highest value of each example input by name, as far as the file tells and
    values can be drawn between them: of a mask with minus infinity they cannot.

    Raises:
        IncompatibleModelError: if they are no ranges.
    """
    table = _table(source, metadata, RANGE, _is_range)
    return {
        name: (low, high)
        for name, (low, high) in table.items()
        if -_HIGHEST <= low <= high <= _HIGHEST
    }


def read_axes(source: object, metadata: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The names of axes whose size may change, by input and number, as far as the file tells.

    Raises:
        IncompatibleModelError: if they are no names.
    """
    return _table(source, metadata, AXES, _is_naming)


def read_examples(
    source: object, metadata: Mapping[str, str], inputs: Mapping[str, Port]
) -> dict[str, Example]:
    """The examples that fit the inputs; others are of the file as it was before somebody changed
    it.

    Raises:
        IncompatibleModelError: if they are no examples.
    """
    shapes, ranges = read_shapes(source, metadata), read_ranges(source, metadata)
    return {
        name: Example(shape, *ranges.get(name, ()))
        for name, shape in shapes.items()
        if name in inputs and _fits(shape, inputs[name].shape)
    }


def _fits(shape: tuple[int, ...], declared: tuple[int | str, ...] | None) -> bool:
    if declared is None:
        return True
    return len(shape) == len(declared) and all(
        isinstance(size, str) or size < 0 or size == given
        for given, size in zip(shape, declared, strict=True)
    )


def _table(
    source: object, metadata: Mapping[str, str], key: str, is_entry: Callable[[Any], bool]
) -> dict[str, Any]:
    try:
        table = parse(metadata.get(key, "{}"))
    except ValueError:
        table = None
    if not isinstance(table, dict) or not all(map(is_entry, table.values())):
        raise IncompatibleModelError(f"{source} has a damaged {key}; export it again")
    return table


def _is_shape(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and all(type(size) is int and size > 0 for size in entry)
        and math.prod(entry) <= _MOST_VALUES
    )


def _is_range(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and all(type(value) in (int, float) for value in entry)
    )


def _is_naming(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(name, str) for name in entry.values())
