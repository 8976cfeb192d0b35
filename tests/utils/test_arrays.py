"""Arrays that a command line describes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.utils.arrays import parse_arrays, random_array, read_arrays


def test_names_in_turn_types_and_values(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", scale=np.float32(2))
    given = read_arrays(tmp_path / "a.npz")
    shapes = ["2x5", "mask=3x4:bool", "1000:int64"]
    found = parse_arrays(shapes, given, ["x", "scale", "mask", "ids"])
    kinds = {name: (array.shape, array.dtype.name) for name, array in found.items()}
    assert kinds == {
        "scale": ((), "float32"), "x": ((2, 5), "float32"), "mask": ((3, 4), "bool"),
        "ids": ((1000,), "int64"),
    }  # fmt: skip
    assert set(found["ids"]) == {0, 1}
    again = parse_arrays(shapes, given, ["x", "scale", "mask", "ids"])
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
        parse_arrays(["1", "1"], read_arrays(None), ["x"])
    with pytest.raises(UsageError, match=r"none\.npz does not exist"):
        read_arrays(tmp_path / "none.npz")
    with pytest.raises(UsageError, match="is a folder; name a file"):
        read_arrays(tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["a"]), r"x in .*a\.npz holds text; give an array of numbers"),
        (np.array([None]), "holds Python objects; give"),
        (np.zeros(1, "M8[s]"), "holds no numbers; give"),
    ],
)
def test_files_of_something_else(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", x=array)
    with pytest.raises(UsageError, match=message):
        read_arrays(tmp_path / "a.npz")


def test_files_without_names(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(UsageError, match="is a single array without a name; write it with"):
        read_arrays(tmp_path / "a.npy")
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(IncompatibleModelError, match=r"text\.npz is no \.npz file with arrays"):
        read_arrays(tmp_path / "text.npz")


def test_bytes_in_another_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3, dtype=">f4"))
    array = read_arrays(tmp_path / "a.npz")["x"]
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, [0, 1, 2])
