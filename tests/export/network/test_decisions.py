"""What is told of a network's decisions by sizes."""

from __future__ import annotations

import runpy
from pathlib import Path

import mamba_blocks as blocks
import mamba_patterns as networks
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dvmsr.errors import DvmsrError, IncompatibleModelError
from dvmsr.export import export_network
from dvmsr.export.network.decisions import Decision, fixed_at, recording
from dvmsr.export.network.inputs import Inputs
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model

HERE = str(Path(__file__))
PATTERNS = str(Path(networks.__file__))


class Remainder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2 if x.shape[2] % 8 == 0 else x
        return y + 1 if x.shape[3] % 4 != 0 else y


class Between(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2 if x.shape[2] > x.shape[3] else x
        return y + 1 if x.shape[2] * 2 + x.shape[3] > 9 else y


class Number(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * int(x.shape[2] / 4)


class Product(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1:].numel())


class Torchs(nn.Module):
    """PyTorch's own checks are no decisions of the network."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], 3, x.shape[2] // 2, 2, -1).flatten(1) + x.flatten(1)


def decisions(module: nn.Module, *shape: int) -> list[Decision]:
    inputs = Inputs({"x": torch.rand(shape)}, {"x": {0: "batch", 2: "height", 3: "width"}})
    sizes = {"x": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)}
    with recording() as noted:
        torch.export.export(
            module, (), inputs.tensors, dynamic_shapes=sizes, strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
    return noted.of(inputs)


def test_remainders_and_relations_in_words() -> None:
    found = decisions(Remainder(), 2, 3, 16, 6)
    assert [one.holds for one in found] == ["height is a multiple of 8", "width % 4 != 0"]
    assert all(one.line.startswith(f"{HERE}, line ") for one in found)
    assert not any(one.fixes or one.is_range for one in found)
    larger, sum_ = decisions(Between(), 2, 3, 16, 6)
    assert larger.holds in ("width < height", "height > width") and larger.is_range
    assert sum_.holds in (
        "height, width are as in the example",
        "width, height are as in the example",
    )


def test_numbers_made_of_sizes_are_told_apart() -> None:
    (found,) = decisions(Number(), 2, 3, 16, 6)
    assert found.fixes and found.line.startswith(HERE)
    assert fixed_at([found]) == f" at {found.line}"
    assert fixed_at(decisions(Remainder(), 2, 3, 16, 6)) == ""


@pytest.mark.parametrize("folder", ["torch", "dvmsr", "logging"])
def test_a_network_may_lie_in_a_folder_of_any_name(folder: str, tmp_path: Path) -> None:
    file = tmp_path / folder / "net.py"
    file.parent.mkdir()
    file.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x * 2 if x.shape[2] % 8 == 0 else x\n"
    )
    found = decisions(runpy.run_path(str(file))["Net"](), 2, 3, 16, 6)
    assert [one.line for one in found] == [f"{file}, line 4"]


def test_checks_of_pytorch_are_none() -> None:
    assert decisions(Torchs(), 2, 3, 16, 6) == []


@pytest.mark.skipif(cpu.library_path() is None, reason="dvmsr has no native operators here")
@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (
            networks.Padded(),
            (1, 3, 16, 4),
            rf"at height 17: .*decides by sizes at {PATTERNS}, line",
        ),
        (Remainder(), (1, 3, 16, 6), rf"\(native, height 17\) .*decides by sizes at {HERE}, line"),
        (
            Number(),
            (1, 3, 16, 4),
            rf"\(native, height .* a size is fixed at {HERE}, line \d+; comp",
        ),
        (networks.Windows(True), (1, 6, 16, 16), rf"fixed? .*at {PATTERNS}, line \d+; compute"),
        (Product(), (1, 3, 16, 4), rf"fixes the size of height at {HERE}, line \d+; compute"),
    ],
    ids=["padded", "remainder", "number", "windows", "product"],
)
def test_the_line_that_decides_is_named(
    tmp_path: Path, module: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    axes = {0: "batch", 2: "height", 3: "width"} if shape[1] == 6 else {2: "height"}
    with pytest.raises(DvmsrError, match=message) as caught:
        export_network(
            module, (torch.rand(shape),), tmp_path / "m.onnx", {"x": axes}, progress=lambda _: None
        )
    assert caught.value.exit_code in (3, 5)
    assert list(tmp_path.iterdir()) == []


def test_a_branch_is_told_before_anything_is_compared(tmp_path: Path) -> None:
    lines: list[str] = []
    export_network(
        Remainder(), (torch.rand(1, 3, 16, 8),), tmp_path / "m.onnx", {"x": {2: "height"}},
        verify=False, progress=lines.append,
    )  # fmt: skip
    (told,) = (line for line in lines if "file holds" in line)
    assert told.startswith("the file holds what the network does where height is a multiple of 8")
    assert HERE in told


@pytest.mark.skipif(cpu.library_path() is None, reason="dvmsr has no native operators here")
def test_a_size_of_1_that_is_made_of_others_is_no_constant(tmp_path: Path) -> None:
    """The example has one window; the file takes any number."""
    lines: list[str] = []
    module = blocks.Windowed(size=8).eval()
    export_network(
        module, (torch.rand(1, 6, 7, 6),), tmp_path / "m.onnx",
        {"x": {0: "batch", 2: "height", 3: "width"}}, progress=lines.append,
    )  # fmt: skip
    assert any(line.startswith("traced again at height 14, width 12") for line in lines)
    x = torch.rand(2, 6, 9, 25)
    (y,) = open_model(tmp_path / "m.onnx")(x=x.numpy()).values()
    with torch.no_grad():
        np.testing.assert_allclose(y, module(x).numpy(), atol=1e-5)


def test_pytorch_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(IncompatibleModelError, match="decides by values of its data"):
        export_network(
            networks.Branch(), (torch.rand(2, 3),), tmp_path / "m.onnx", progress=lambda _: None
        )
    assert capfd.readouterr() == ("", "")
