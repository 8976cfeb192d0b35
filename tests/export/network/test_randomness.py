"""Random numbers are found where they are drawn, seeded or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvmsr.errors import IncompatibleModelError
from dvmsr.export import export_network
from dvmsr.export.network.randomness import Draws
from dvmsr.export.network.verify import outputs_of


class Seeded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return x + torch.rand_like(x)


class OwnGenerator(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(x.shape, generator=torch.Generator().manual_seed(3))


class Gumbel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.gumbel_softmax(x, hard=True)


class Dropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return F.dropout(x, 0.5, training=True)


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Idle(nn.Module):
    """Might draw, and does not."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.dropout(x, 0.5, training=False), 0.0, training=True)
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.0)


@pytest.mark.parametrize("module", [Seeded(), OwnGenerator(), Gumbel(), Dropout()], ids=repr)
def test_the_line_that_draws_is_named(tmp_path: Path, module: nn.Module) -> None:
    line = rf"draws random numbers at {__file__}, line \d+, which a file does otherwise"
    with pytest.raises(IncompatibleModelError, match=line):
        export_network(module, (torch.rand(4, 8),), tmp_path / "m.onnx", progress=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_changes_is_told_from_it(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleModelError, match=r"differs .* it changes its own state"):
        export_network(Counts(), (torch.rand(4),), tmp_path / "m.onnx", progress=lambda _: None)


def test_what_does_not_draw_goes(tmp_path: Path) -> None:
    report = export_network(
        Idle().eval(), (torch.rand(1, 1, 4, 8),), tmp_path / "m.onnx", progress=lambda _: None
    )
    assert not [name for name in report.nodes if name.startswith("Random")]


class Conditional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        taken: Tensor = torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))
        return taken


def test_graphs_within_a_network_are_computed() -> None:
    x = torch.rand(2, 3)
    with Draws() as draws:
        (found,) = outputs_of(Conditional(), {"x": x})
    assert not draws.lines
    np.testing.assert_array_equal(found, x.sin().numpy())
