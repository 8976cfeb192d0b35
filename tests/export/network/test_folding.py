"""How many nodes and what constants a file has."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from dvmsr.export import export_network
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model


class Lists(nn.Module):
    """Reads by lists of indices, as PlainMamba: along each axis, forwards and back."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.rand(5, 16))
        self.order = tuple(torch.randperm(196).tolist())
        self.back = tuple(torch.randperm(3).tolist())

    def forward(self, x: Tensor) -> Tensor:
        shift = self.rows[[i % 5 for i in self.order], :]  # (196, 16)
        return (x[:, self.order, :] + shift)[:, :, self.back[0] : 16][self.back, :, -1]


class Masked(nn.Module):
    """Reads that are no list of indices."""

    def forward(self, x: Tensor) -> Tensor:
        table = torch.tensor([[0, 1], [2, 0]])
        return x[:, table].sum() + x[torch.tensor([0, 1]), torch.tensor([1, 0])].sum()


class Arranged(nn.Module):
    """Large weights in another shape, one of them in two places and one in another way, too; and
    one that is given as a logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.alone, self.shared, self.log = (nn.Parameter(torch.rand(96, 128)) for _ in range(3))
        self.square = nn.Parameter(torch.rand(128, 128))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = torch.conv2d(x, self.square[:, :, None, None])
        y = torch.conv2d(x, self.alone[:, :, None, None])
        y = y + torch.conv2d(x, -self.log.exp()[:, :, None, None])
        return y + torch.conv2d(x, self.shared[:, :, None, None]) + self.shared.mean()


def exported(folder: Path, module: nn.Module, *shape: int) -> onnx.ModelProto:
    axes = {"x": {0: "batch"}}
    export_network(module, (torch.rand(shape),), folder / "m.onnx", axes, progress=lambda _: None)
    return onnx.load(folder / "m.onnx")


pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)


def test_a_list_of_indices_is_one_gather_and_its_rows_stay_few(tmp_path: Path) -> None:
    model = exported(tmp_path, Lists(), 3, 196, 16)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Gather") >= 3
    assert not {"Transpose", "GatherND"} & set(kinds)
    largest = max(max(tensor.dims, default=0) for tensor in model.graph.initializer)
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert largest == 196  # the order itself
    assert [list(tensor.dims) for tensor in floats] == [[5, 16]]


def test_other_reads_stay_right(tmp_path: Path) -> None:
    exported(tmp_path, Masked(), 2, 4)
    x = torch.rand(3, 4)
    (y,) = open_model(tmp_path / "m.onnx")(x=x.numpy()).values()
    torch.testing.assert_close(torch.from_numpy(y), Masked()(x))


def test_weights_are_arranged_once_unless_they_are_read_otherwise(tmp_path: Path) -> None:
    model = exported(tmp_path, Arranged(), 2, 128, 3, 3)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Unsqueeze") + kinds.count("Reshape") <= 2  # of the shared one
    assert not {"Exp", "Neg"} & set(kinds)
    shapes = sorted(list(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) > 1)
    assert shapes == [[96, 128], *[[96, 128, 1, 1]] * 2, [128, 128, 1, 1]]
