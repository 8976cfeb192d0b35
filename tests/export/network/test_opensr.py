"""opensr-mamba 0.0.1, which enlarges satellite pictures: other people's code and trained weights,
exported as its user would, with dvmsr's stand-ins for mamba-ssm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from opensr import NEEDED, export

from dvmsr.runtime import open_model

pytestmark = [pytest.mark.slow, *NEEDED]


@pytest.mark.parametrize(
    ("name", "taken", "given", "scale"),
    [("sr", 3, 3, 4), ("fusion01", 10, 6, 1), ("fusion02", 10, 7, 1)],
)
def test_whole_with_its_weights(
    tmp_path: Path, name: str, taken: int, given: int, scale: int
) -> None:
    done = export(tmp_path, name, taken)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{name}.onnx\n"
    kinds = [node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node]
    assert kinds.count("SelectiveScan") == 8
    assert "Einsum" not in kinds
    assert "native at batch 1, height 20, width 32" in done.stderr

    model = open_model(tmp_path / f"{name}.onnx")
    assert model.inputs["x"].shape == ("batch", taken, "height", "width")
    x = np.random.default_rng(0).random((1, taken, 12, 28), np.float32)
    (made,) = model(x=x).values()
    assert made.shape == (1, given, 12 * scale, 28 * scale)
    portable = open_model(tmp_path / f"{name}.onnx", "portable")(x=x)
    np.testing.assert_allclose(next(iter(portable.values())), made, atol=1e-5)
