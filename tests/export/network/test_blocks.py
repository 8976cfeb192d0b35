"""The patterns of published networks with dynamic sizes, natively and by the bodies in the file."""

from __future__ import annotations

from pathlib import Path

import mamba_blocks as blocks
import numpy as np
import pytest
import torch
from mamba_patterns import SS2D
from torch import nn

from dvmsr.export import export_network
from dvmsr.export.network.outputs import flatten
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cpu.library_path() is None, reason="dvmsr has no native operators here"),
]

IMAGE = {0: "batch", 2: "height", 3: "width"}
TOKENS = {0: "batch", 1: "tokens"}
# Block, example, dynamic axes, another input; how many scans or mixers, and at most how many nodes.
BLOCKS = {
    "routed": (blocks.Routed, (1, 12, 6), TOKENS, (3, 37, 6), 1, 40),
    "snake": (blocks.Snake, (2, 20, 6), {0: "batch"}, (3, 20, 6), 2, 44),
    "skipping": (blocks.Skipping, (1, 6, 8, 6), IMAGE, (2, 6, 5, 7), 4, 180),
    "windowed": (blocks.Windowed, (1, 6, 8, 7), IMAGE, (2, 6, 6, 11), 1, 64),
    "last_state": (blocks.LastState, (1, 9, 6), TOKENS, (2, 5, 6), 1, 16),
    "one_state": (lambda: SS2D(state=1), (1, 6, 8, 6), IMAGE, (2, 6, 5, 7), 1, 46),
    "mamba_fast": (lambda: blocks.mamba(True), (1, 9, 6), TOKENS, (2, 5, 6), 1, 9),
    "mamba_slow": (lambda: blocks.mamba(False), (1, 9, 6), TOKENS, (2, 5, 6), 1, 9),
}


@pytest.mark.parametrize(
    ("make", "example", "axes", "other", "scans", "most"), BLOCKS.values(), ids=BLOCKS
)
def test_block(
    tmp_path: Path,
    make: type[nn.Module],
    example: tuple[int, ...],
    axes: dict[int, str],
    other: tuple[int, ...],
    scans: int,
    most: int,
) -> None:
    torch.manual_seed(0)
    module = make().eval()
    (name,) = (key for key in ("x", "hidden_states") if key in module.forward.__annotations__)
    report = export_network(
        module, (torch.randn(example),), tmp_path / "b.onnx", {name: axes}, progress=lambda _: None
    )
    assert sum(report.nodes.get(name, 0) for name in ("SelectiveScan", "MambaMixer")) == scans
    assert not {"Einsum", "GatherND"} & set(report.nodes)
    assert {check.backend for check in report.checks} == {"native", "portable"}
    assert sum(report.nodes.values()) <= most
    x = torch.randn(other)
    with torch.no_grad():
        expected = flatten(module(x))
    for backend in ("native", "portable"):
        found = open_model(tmp_path / "b.onnx", backend)(**{name: x.numpy()})
        assert list(found) == list(expected)
        for key, value in found.items():
            np.testing.assert_allclose(value, expected[key].numpy(), atol=1e-5)
