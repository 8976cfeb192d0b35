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
