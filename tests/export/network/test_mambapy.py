"""mambapy's Vim, other people's code: exported over dvmsr's stand-in for mamba-ssm, and compared
with mambapy's own sequential scan."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dvmsr import compat
from dvmsr.export import export_network
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("mambapy") is None, reason="mambapy is not installed"
    ),
    pytest.mark.skipif(cpu.library_path() is None, reason="dvmsr has no native operators here"),
]


def vim(over_mamba_ssm: bool, bidirectional: bool) -> nn.Module:
    from mambapy.vim import MambaConfig, VMamba

    torch.manual_seed(0)
    config = MambaConfig(
        d_model=16, n_layers=2, pscan=False, use_cuda=over_mamba_ssm, bidirectional=bidirectional
    )
    module: nn.Module = VMamba(config)
    return module.eval()


@pytest.fixture
def importing() -> Iterator[None]:
    with compat.importing():
        yield
    compat.uninstall()


@pytest.mark.usefixtures("importing")
@pytest.mark.parametrize("bidirectional", [True, False])
def test_over_mamba_ssm_it_is_its_own_sequential_scan(tmp_path: Path, bidirectional: bool) -> None:
    report = export_network(
        vim(True, bidirectional), (torch.randn(2, 9, 16),), tmp_path / "vim.onnx",
        {"x": {0: "batch", 1: "tokens"}}, progress=lambda _: None,
    )  # fmt: skip
    assert report.nodes["SelectiveScan"] == 2 * (1 + bidirectional)
    x = torch.randn(3, 14, 16)
    with torch.no_grad():
        expected = vim(False, bidirectional)(x).numpy()
    for backend in ("native", "portable"):
        (y,) = open_model(tmp_path / "vim.onnx", backend)(x=x.numpy()).values()
        np.testing.assert_allclose(y, expected, atol=1e-5)
