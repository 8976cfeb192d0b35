"""Names of what a network returns, and what is no result."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch

from dvmsr.errors import IncompatibleModelError
from dvmsr.export.network.outputs import flatten

X = torch.ones(2)


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (X, ["output"]),
        ((X, None, [X, (X,)]), ["output_0", "output_1", "output_2"]),
        (OrderedDict(b=X, a=X), ["b", "a"]),
        ({1: X, "two": X}, ["1", "two"]),
        ({"a": X, "b": [X, X], "c": None}, ["a", "b_0", "b_1"]),
    ],
)
def test_names(returned: Any, names: list[str]) -> None:
    assert list(flatten(returned)) == names


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returns no tensor"),
        ((), "returns no tensor"),
        ({}, "returns no tensor"),
        ([None, {"a": None}], "returns no tensor"),
        (3.5, "returns an object of type float among its tensors"),
        ({"a": X, "b": "text"}, "returns an object of type str among its tensors"),
        ({1: X, "1": X}, "names its outputs 1, 1, as text; give each a name of its own"),
        ({"": X}, "give each a name of its own"),
        (X + 1j, r"output is complex, .* torch\.view_as_real"),
        ({"y": X.bfloat16()}, r"the network's y is bfloat16, .* \.float\(\)"),
    ],
)
def test_what_is_no_result(returned: Any, message: str) -> None:
    with pytest.raises(IncompatibleModelError, match=message):
        flatten(returned)
