"""Networks by name: the bundled one, checkpoints, import paths, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.model import DVMSR
from dvmsr.runtime import Upscaler, memory
from dvmsr.torch_module import TorchModule, load

SOURCE = """
import torch
from torch import nn

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, image):
        return self.gain * nn.functional.interpolate(image, scale_factor=2)

def make(): return Twice()
def needy(weights): return Twice()
def failing(): raise FileNotFoundError("weights.pth is not here\\nat all")
def leaving(): raise SystemExit
def number(): return 3
ready = Twice()
constant = 3
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current folder, and its name."""
    for name, source in {
        "networks_of_a_test": SOURCE,
        "broken_of_a_test": "1 +",
        "raising_of_a_test": "raise ValueError('no luck')",
        "needing_of_a_test": "import no_such_package_at_all.part",
    }.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "networks_of_a_test"
    for name in list(sys.modules):
        if name.endswith("_of_a_test"):
            del sys.modules[name]


@pytest.mark.parametrize("attribute", ["make", "Twice", "ready"])
def test_import_paths(networks: str, attribute: str) -> None:
    """It runs in the type of its weights, FP64 here, whatever it is given."""
    network = load(f"{networks}:{attribute}")
    assert not network.module.training
    image = torch.rand(3, 2, 5)
    sr = network.enlarge(image)
    assert sr.dtype == torch.float32
    expected = 2 * image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(sr, expected)
    gradient = network.gradient(image, lambda sr: sr[0, 0, 0, 0])
    assert gradient.dtype == torch.float32
    assert gradient[0, 0, 0] == 2 and gradient.count_nonzero() == 1


def test_checkpoints_and_the_bundled_student(tmp_path: Path) -> None:
    model = DVMSR(DVMSRConfig(channels=8, depths=(1,), state=2, scale=3)).eval()
    checkpoint.save(model, tmp_path / "small.safetensors")
    image = torch.rand(3, 6, 7)
    with torch.no_grad():
        expected = model(image[None])[0]
    sr = load(str(tmp_path / "small.safetensors")).enlarge(image)
    torch.testing.assert_close(sr, expected)
    pixels = (image * 255).round().to(torch.uint8)
    shown = Upscaler.from_file("student")(pixels.permute(1, 2, 0).numpy())
    sr = (load("student").enlarge(pixels / 255).clamp(0, 1) * 255).permute(1, 2, 0)
    assert (sr - torch.from_numpy(shown)).abs().max() < 0.6  # it was rounded


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("pupil", UsageError, "no model named pupil; there is student, or name a checkpoint"),
        ("student-fp16", UsageError, "no model named student-fp16; there is student, or name"),
        ("model.onnx", UsageError, "no model named model.onnx"),
        ("missing.pth", UsageError, "missing.pth does not exist"),
        ("no_such_module:make", UsageError, "there is no module no_such_module"),
        ("no_such.module:make", UsageError, "there is no module no_such"),
        ("json.no_such:make", UsageError, "there is no module json.no_such"),
        ("../networks:make", UsageError, "no model named ../networks:make"),
        ("networks_of_a_test:", UsageError, "no model named networks_of_a_test:"),
        ("networks_of_a_test:other", UsageError, "has no other"),
        ("networks_of_a_test:constant", UsageError, "cannot be called"),
        ("networks_of_a_test:needy", DvmsrError, "failed (TypeError: needy() missing 1"),
        ("networks_of_a_test:failing", DvmsrError, "(FileNotFoundError: weights.pth is not here);"),
        ("networks_of_a_test:leaving", DvmsrError, "failed (SystemExit)"),
        ("networks_of_a_test:number", IncompatibleModelError, "returns a int, not a torch.nn.Mod"),
        ("broken_of_a_test:make", DvmsrError, "cannot be imported (SyntaxError: "),
        ("raising_of_a_test:make", DvmsrError, "cannot be imported (ValueError: no luck)"),
        ("needing_of_a_test:make", MissingComponentError, "needs the package no_such_package"),
    ],
)
def test_refusals(networks: str, name: str, kind: type[DvmsrError], message: str) -> None:
    with pytest.raises(DvmsrError) as error:
        load(name)
    assert type(error.value) is kind
    assert message in str(error.value) and "\n" not in str(error.value)


class Made(nn.Module):
    """Returns what a function makes of the input."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> object:
        return self.function(image)


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (lambda x: x[..., :-1], IncompatibleModelError, "returns 1x3x4x4 for an input of 1x3x4x5"),
        (lambda x: x[:, :2], IncompatibleModelError, "returns 1x2x4x5"),
        (lambda x: x[0], IncompatibleModelError, "returns 3x4x5"),
        (lambda x: x.repeat(1, 1, 2, 1), IncompatibleModelError, "returns 1x3x8x5"),
        (lambda x: x.sum(), IncompatibleModelError, "returns a scalar"),
        (lambda x: x[..., :0, :0], IncompatibleModelError, "returns 1x3x0x0"),
        (lambda x: [x], IncompatibleModelError, "returns a list"),
        (lambda x: x.reshape(7), DvmsrError, "failed on an input of 5x4 pixels (RuntimeError: "),
        (lambda x: 1 / 0, DvmsrError, "(ZeroDivisionError: division by zero)"),
        (lambda x: sys.exit(7), DvmsrError, "(SystemExit: 7)"),
        (lambda x: x.to("meta"), IncompatibleModelError, "has no weights, only their shapes"),
        (lambda x: x / 0, DvmsrError, "that are no finite numbers"),
    ],
)
def test_results_that_do_not_fit(
    function: Callable[[Tensor], object], kind: type[DvmsrError], message: str
) -> None:
    with pytest.raises(DvmsrError) as error:
        TorchModule("m:f", Made(function)).enlarge(torch.ones(3, 4, 5))
    assert type(error.value) is kind
    assert str(error.value).startswith("m:f ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_gradients_that_do_not_exist() -> None:
    image = torch.rand(3, 4, 5)
    with pytest.raises(IncompatibleModelError, match="gives no gradient"):
        TorchModule("m:f", Made(lambda x: x.detach())).gradient(image, torch.sum)
    with pytest.raises(DvmsrError, match="no finite numbers"):
        TorchModule("m:f", Made(lambda x: (x - x).sqrt())).gradient(image, torch.sum)


def test_stops_before_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty squares keep twenty tensors of 48000 bytes; room for 1.5 times as much is needed."""

    def squares(x: Tensor) -> Tensor:
        for _ in range(20):
            x = x**2
        return x

    network, image = TorchModule("m:f", Made(squares)), torch.rand(3, 40, 100)
    monkeypatch.setattr(memory, "available", lambda: 1_500_000)
    network.gradient(image, torch.sum)
    monkeypatch.setattr(memory, "available", lambda: 1_400_000)
    with pytest.raises(DvmsrError, match=r"m:f needs more memory .* 100x40 pixels .* --patch"):
        network.gradient(image, torch.sum)
    network.enlarge(image)
    monkeypatch.setattr(memory, "available", lambda: None)
    network.gradient(image, torch.sum)
