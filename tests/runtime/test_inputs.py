"""What networks are run on: the same arrays, by the names of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dvmsr.errors import UsageError
from dvmsr.runtime.backends.tensors import Arrays, Example, Port, TensorNetwork
from dvmsr.runtime.inputs import find_inputs


class Fake(TensorNetwork):
    def __init__(
        self,
        inputs: dict[str, Port],
        examples: dict[str, Example] | None = None,
        backend: str = "native",
    ) -> None:
        self.model, self.backend, self.precision = f"{backend}.net", backend, "fp32"
        self.inputs, self.examples, self.outputs = inputs, examples or {}, {}

    def _run(self, feeds: Arrays) -> Arrays:
        return feeds


FREE = Port(("batch", 3), "float32")
UNKNOWN = Port(None, None)
TOLD = {"x": Example((4, 3), -1, 1)}


def test_the_file_tells_a_factory_by_another_name() -> None:
    factory = Fake({"image": UNKNOWN, "scale": Port(None, None, True)}, backend="torch")
    theirs, ours = find_inputs([factory, Fake({"x": FREE}, TOLD)], [], None)
    assert (list(theirs), list(ours)) == (["image"], ["x"])
    assert ours["x"] is theirs["image"]
    assert ours["x"].shape == (4, 3)
    assert -1 <= ours["x"].min() < 0


@pytest.mark.parametrize(
    ("choosy", "rows"),
    [
        (Fake({"x": Port((2, 3), "float32")}), 2),
        (Fake({"x": FREE}, {"x": Example((8, 3))}, "tensorrt"), 8),
        (Fake({"x": FREE}, {"x": Example((6, 3))}), 4),
    ],
)
def test_the_choosiest_decides(choosy: Fake, rows: int) -> None:
    for arrays in find_inputs([Fake({"x": FREE}, TOLD), choosy], [], None):
        assert arrays["x"].shape == (rows, 3)


def test_what_is_given_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", scale=np.float32(2))
    both = Fake({"x": FREE, "scale": Port((), "float32", True)}, TOLD)
    (found,) = find_inputs([both], [], tmp_path / "a.npz")
    assert (found["x"].shape, found["scale"]) == ((4, 3), 2)
    (found,) = find_inputs([both], ["7x3"], None)
    assert list(found) == ["x"]
    assert found["x"].shape == (7, 3)
    with pytest.warns(UserWarning, match=r"native\.net is run without scale, which it lacks"):
        _, found = find_inputs([both, Fake({"x": FREE})], ["7x3"], tmp_path / "a.npz")
    assert list(found) == ["x"]


def test_types() -> None:
    ports = {"ids": Port((5,), "int64"), "h": Port((3,), "float16"), "b": Port((3,), "bfloat16")}
    (found,) = find_inputs([Fake(ports, {"ids": Example((5,), 7, 9)})], [], None)
    assert set(found["ids"]) <= {7, 8, 9}
    assert [array.dtype.name for array in found.values()] == ["int64", "float16", "float32"]
    with pytest.raises(UsageError, match="is object, of which nothing can be made up; give"):
        find_inputs([Fake({"t": Port((1,), "object")})], [], None)


@pytest.mark.parametrize(
    ("networks", "shapes", "message"),
    [
        ([Fake({"x": UNKNOWN})], [], r"does not tell the sizes of its inputs \(x: any array\)"),
        ([Fake({"x": FREE})], ["y=1x3"], "no model has an input y; there is x"),
        ([Fake({"x": FREE}), Fake({"x": UNKNOWN, "y": UNKNOWN})], ["1x3"], "needs the input y"),
        ([Fake({"x": FREE})], ["1x4"], r"x has shape \(1, 4\), but native.net takes float32"),
    ],
)
def test_what_is_missing(networks: list[TensorNetwork], shapes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_inputs(networks, shapes, None)
