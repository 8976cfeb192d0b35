"""What the command line says of inputs."""

from __future__ import annotations

from pathlib import Path

import mamba_patterns as networks
import numpy as np
import pytest
import torch

from dvmsr.errors import DvmsrError
from dvmsr.export.network.inputs import parse_inputs


def test_shapes_types_names_and_axes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", scale=np.float32(2))
    found = parse_inputs(networks.gated(), ["2x5x8"], tmp_path / "a.npz", ["tokens=0,1:length"])
    assert {name: tuple(t.shape) for name, t in found.tensors.items()} == {
        "scale": (), "tokens": (2, 5, 8),
    }  # fmt: skip
    assert found.dynamic == {"tokens": {0: "batch", 1: "length"}}
    assert found.axes == {"batch": 2, "length": 5}
    assert found.resized({"length": 7})["tokens"].shape == (2, 7, 8)
    whole = parse_inputs(networks.gated(), ["tokens=3x4:int64"]).tensors["tokens"]
    assert whole.dtype == torch.int64


@pytest.mark.parametrize(
    ("shapes", "dynamic", "message"),
    [
        ([], [], "needs example inputs"),
        (["3y4"], [], "--input 3y4 is not"),
        (["3x4:complex64"], [], "with a TYPE of float32"),
        (["1x0x8"], [], "has 0 elements"),
        (["100000x100000x800"], [], "has 8000000000000 elements; give 1 to"),
        (["1x2", "1", "1"], [], "one too many: the inputs are tokens, scale"),
        (["1x2", "tokens=1x2"], [], "gives tokens once more"),
        (["1x2"], ["height"], "--dynamic height is not"),
        (["1x2"], ["0:a,0:b"], "names axis 0 of tokens once more"),
        (["1x2"], ["7"], "so none with number 7"),
    ],
)
def test_bad_words(shapes: list[str], dynamic: list[str], message: str) -> None:
    with pytest.raises(DvmsrError, match=message) as caught:
        parse_inputs(networks.gated(), shapes, None, dynamic)
    assert caught.value.exit_code == 2


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DvmsrError, match=r"none\.npz does not exist"):
        parse_inputs(networks.gated(), [], tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(DvmsrError, match=r"text\.npz is no \.npz file with arrays"):
        parse_inputs(networks.gated(), [], tmp_path / "text.npz")


def saved(folder: Path, **arrays: object) -> Path:
    np.savez(folder / "a.npz", **arrays)  # type: ignore[arg-type]
    return folder / "a.npz"


BAD_ARRAYS: dict[str, tuple[object, str]] = {
    "objects": (np.array([None, {}], object), r"tokens in .*a\.npz holds Python objects; give"),
    "text": (np.array(["a", "b"]), r"tokens in .*a\.npz holds text; give an array of numbers"),
    "records": (np.zeros(2, "i4,f4"), r"tokens in .*a\.npz holds no numbers; give"),
    "long": (np.zeros(2, np.longdouble), r"is float\d+; give it in a type that PyTorch has"),
    "double": (
        np.zeros((1, 2)),
        r"input tokens is float64; give it as float32: an input is",
    ),
    "complex": (np.zeros(2, np.complex64), r"input tokens is complex64; give it: an input is one"),
    "unsigned": (np.zeros(2, np.uint32), r"input tokens is uint32; give it: an input is one of"),
    "empty": (np.zeros((0, 2), np.float32), "input tokens is empty"),
}


@pytest.mark.parametrize(("array", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays(tmp_path: Path, array: object, message: str) -> None:
    with pytest.raises(DvmsrError, match=message) as caught:
        parse_inputs(networks.gated(), [], saved(tmp_path, tokens=array))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_bad_names_and_single_arrays(tmp_path: Path) -> None:
    x = np.zeros((1, 2, 8), np.float32)
    with pytest.raises(DvmsrError, match=r"a\.npz holds token, which is no .*it takes tokens, sc"):
        parse_inputs(networks.gated(), [], saved(tmp_path, tokens=x, token=x))
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DvmsrError, match=r"x\.npy is a single array without a name; write it"):
        parse_inputs(networks.gated(), [], tmp_path / "x.npy")
    with pytest.raises(DvmsrError, match="is a folder; name a file"):
        parse_inputs(networks.gated(), [], tmp_path)


def test_arrays_of_other_byte_orders_and_strides_are_the_same(tmp_path: Path) -> None:
    x = np.arange(6, dtype=">f4").reshape(1, 2, 3)[:, ::-1]
    found = parse_inputs(networks.gated(), [], saved(tmp_path, tokens=x)).tensors["tokens"]
    np.testing.assert_array_equal(found.numpy(), x)
