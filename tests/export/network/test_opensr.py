"""opensr-mamba 0.0.1, which enlarges satellite pictures: other people's code and trained weights,
exported as its user would, with dvmsr's stand-ins for mamba-ssm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from opensr import export, skip_without_opensr

from dvmsr.runtime import open_model

pytestmark = pytest.mark.slow


def test_whole_with_its_weights(tmp_path: Path) -> None:
    skip_without_opensr()
    done = export(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "sr.onnx\n"
    kinds = [node.op_type for node in onnx.load(tmp_path / "sr.onnx").graph.node]
    assert kinds.count("SelectiveScan") == 8
    assert "Einsum" not in kinds
    assert "native at batch 1, height 20, width 32" in done.stderr

    model = open_model(tmp_path / "sr.onnx")
    assert model.inputs["x"].shape == ("batch", 3, "height", "width")
    x = np.random.default_rng(0).random((1, 3, 12, 28), np.float32)
    (large,) = model(x=x).values()
    assert large.shape == (1, 3, 48, 112)
    portable = open_model(tmp_path / "sr.onnx", "portable")(x=x)
    np.testing.assert_allclose(next(iter(portable.values())), large, atol=1e-5)
