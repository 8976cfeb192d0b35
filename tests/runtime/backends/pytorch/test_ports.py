"""Names of what a network in PyTorch takes and returns."""

from __future__ import annotations

from typing import Any

import mamba_patterns
import own_network
import pytest
import torch
from torch import nn

from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.pytorch.ports import flatten, parameters, takes_any_name

X = torch.ones(2)


def test_what_may_be_given_by_name() -> None:
    assert parameters(mamba_patterns.gated()) == {"tokens": False, "scale": True}
    assert parameters(nn.Sequential()) == {"input": False}
    assert parameters(own_network.named()) == {"x": False}
    assert takes_any_name(own_network.named())
    assert not takes_any_name(nn.Sequential())


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (X, ["output"]),
        ((X, None, [X, (X,)]), ["output_0", "output_1", "output_2"]),
        ({1: X.bfloat16(), "two": X + 1j}, ["1", "two"]),
        ({"a": X, "b": [X, X], "c": None}, ["a", "b_0", "b_1"]),
    ],
)
def test_names_of_outputs(returned: Any, names: list[str]) -> None:
    assert list(flatten(returned)) == names


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returns no tensor; return its results"),
        ({"a": X, "b": "text"}, "returns an object of type str among its tensors"),
        ({1: X, "1": X}, "names its outputs 1, 1, as text; give each a name of its own"),
    ],
)
def test_what_is_no_result(returned: Any, message: str) -> None:
    with pytest.raises(IncompatibleModelError, match=message):
        flatten(returned)
