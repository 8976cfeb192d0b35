"""Arrays that a command line describes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.utils.arrays import parse_arrays, random_array, read_arrays


def test_names_in_turn_types_and_values(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", scale=np.float32(2))
    shapes = ["2x5", "mask=3x4:bool", "1000:int64"]
    found = parse_arrays(shapes, tmp_path / "a.npz", ["x", "scale", "mask", "ids"])
    kinds = {name: (array.shape, array.dtype.name) for name, array in found.items()}
    assert kinds == {
        "scale": ((), "float32"), "x": ((2, 5), "float32"), "mask": ((3, 4), "bool"),
        "ids": ((1000,), "int64"),
    }  # fmt: skip
    assert set(found["ids"]) == {0, 1}
    again = parse_arrays(shapes, tmp_path / "a.npz", ["x", "scale", "mask", "ids"])
    assert all((again[name] == array).all() for name, array in found.items())


def test_ranges() -> None:
    generator = np.random.default_rng(0)
    values = random_array((1000,), "float16", generator, -3, 5)
    assert values.dtype == np.float16
    assert -3 <= values.min() < -2.8
    assert 4.8 < values.max() <= 5
    assert set(random_array((100,), "int32", generator, 3, 5)) == {3, 4, 5}


def test_what_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--input 1 is one too many: the inputs are x"):
        parse_arrays(["1", "1"], None, ["x"])
    with pytest.raises(UsageError, match=r"none\.npz does not exist"):
        read_arrays(tmp_path / "none.npz")
    with pytest.raises(DvmsrError, match="cannot be read"):
        read_arrays(tmp_path)
