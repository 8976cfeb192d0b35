"""A network that rounds much by itself is held to FP64, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dvmsr.errors import ParityError
from dvmsr.export import export_network
from dvmsr.export.network import verify as verification
from dvmsr.export.network.rounding import Exact
from dvmsr.export.network.verify import outputs_of
from dvmsr.kernels import cpu

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)


class InFP32(nn.Module):
    """Does not run in FP64."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.float())


def export(folder: Path, module: nn.Module, x: Tensor) -> verification.Check:
    report = export_network(module, (x,), folder / "m.onnx", progress=lambda _: None)
    return report.checks[0]


def test_what_rounding_explains_passes_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verification.LIMITS, "fp32", 0.0)  # any rounding is above it
    monkeypatch.setattr(verification, "ROUNDING", 10.0)
    x = torch.rand(8, 64)
    check = export(tmp_path, nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)), x)
    assert check.difference > 0
    assert check.rounding is not None and 0 < check.rounding < 1e-6
    assert f"; PyTorch is {check.rounding:.1e} from FP64 itself" in str(check)


def test_an_error_does_not_pass_as_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verification._run
    monkeypatch.setattr(verification, "_run", lambda *a: [y + 2e-5 for y in real(*a)])
    with pytest.raises(ParityError, match="it was not written"):
        export(tmp_path, nn.Linear(4, 4), torch.rand(3, 4))
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_run_in_fp64_has_none() -> None:
    given = {"x": torch.rand(2, 4)}
    assert Exact(InFP32(), outputs_of)(given) is None
    module = nn.Linear(4, 4)
    (wide,) = Exact(module, outputs_of)({"input": given["x"]}) or []
    assert wide.dtype == "float64"
    assert module.weight.dtype == torch.float32
