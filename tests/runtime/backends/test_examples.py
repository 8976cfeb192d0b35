"""What files say of their examples, whoever wrote it."""

from __future__ import annotations

import pytest

from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.examples import AXES, EXAMPLE, RANGE, read_axes, read_examples
from dvmsr.runtime.backends.tensors import Example, Port

INPUTS = {"x": Port(("batch", 3), "float32")}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "[" * 100_000, '{"x": "ab"}', '{"x": 3}', '{"x": [2.5, 3]}',
        '{"x": [-2, 3]}', '{"x": [0, 3]}', '{"x": [true, 3]}', '{"x": [NaN, 3]}',
        '{"x": [Infinity, 3]}', '{"x": [9000000000000, 3]}',
    ],
)  # fmt: skip
def test_what_is_no_shape_is_damage(text: str) -> None:
    with pytest.raises(IncompatibleModelError, match=r"f has a damaged dvmsr\.example; export it"):
        read_examples("f", {EXAMPLE: text}, INPUTS)


@pytest.mark.parametrize("text", ["{", "[]", '{"x": [1]}', '{"x": ["a", "b"]}', '{"x": 3}'])
def test_what_is_no_range_is_damage(text: str) -> None:
    with pytest.raises(IncompatibleModelError, match=r"f has a damaged dvmsr\.example_range"):
        read_examples("f", {EXAMPLE: '{"x": [2, 3]}', RANGE: text}, INPUTS)


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 3}', '{"x": {"0": 5}}'])
def test_what_names_no_axes_is_damage(text: str) -> None:
    with pytest.raises(IncompatibleModelError, match=r"f has a damaged dvmsr\.dynamic"):
        read_axes("f", {AXES: text})


@pytest.mark.parametrize("shape", ["[2]", "[2, 4]", "[2, 3, 1]"])
def test_an_example_of_a_former_shape_is_none(shape: str) -> None:
    assert read_examples("f", {EXAMPLE: f'{{"x": {shape}, "y": [1]}}'}, INPUTS) == {}


@pytest.mark.parametrize("numbers", ["[-Infinity, 0]", "[NaN, 1]", "[2, 1]", "[-1e308, 1e308]"])
def test_of_a_range_without_values_nothing_is_known(numbers: str) -> None:
    told = {EXAMPLE: '{"x": [2, 3]}', RANGE: f'{{"x": {numbers}}}'}
    assert read_examples("f", told, INPUTS) == {"x": Example((2, 3))}


def test_what_is_told() -> None:
    told = {EXAMPLE: '{"x": [2, 3]}', RANGE: '{"x": [-1.5, 2]}', AXES: '{"x": {"0": "batch"}}'}
    assert read_examples("f", told, INPUTS) == {"x": Example((2, 3), -1.5, 2)}
    assert read_axes("f", told) == {"x": {"0": "batch"}}
    assert read_examples("f", {}, INPUTS) == {}
