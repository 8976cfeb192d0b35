"""Networks by name: the bundled one, checkpoints, import paths, and what is refused."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.lam.torch_module import TorchModule
from dvmsr.model import DVMSR
from dvmsr.networks import load
from dvmsr.runtime import Upscaler

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
def needing(): import no_such_package_at_all.part
def outdated(): import json.no_such_part
def drawn():
    import random, numpy
    net = nn.Linear(3, 3)
    net.more = nn.Parameter(torch.tensor([random.random(), numpy.random.random()]))
    return net
def lazy(): return nn.LazyLinear(4)
def compiled(): return torch.compile(nn.DataParallel(Twice()))
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


@pytest.mark.parametrize("attribute", ["make", "Twice", "ready", "compiled"])
def test_import_paths(networks: str, attribute: str) -> None:
    """It runs in the type of its weights, FP64 here, whatever it is given."""
    module = load(f"{networks}:{attribute}")
    assert not module.training
    network = TorchModule("m:f", module)
    image = torch.rand(3, 2, 5)
    sr = network.enlarge(image)
    assert sr.dtype == torch.float32
    expected = 2 * image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(sr, expected)
    gradient = network.gradient(image, lambda sr: sr[0, 0, 0, 0])
    assert gradient.dtype == torch.float32
    assert gradient[0, 0, 0] == 2 and gradient.count_nonzero() == 1


def test_weights_drawn_at_random_are_the_same_every_time(networks: str) -> None:
    """Or `dvmsr parity` would refuse the file that `dvmsr-export onnx` wrote of the same name."""
    first = load(f"{networks}:drawn").state_dict()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    again = load(f"{networks}:drawn").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first) and first["more"].all()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_checkpoints_and_the_bundled_student(tmp_path: Path) -> None:
    model = DVMSR(DVMSRConfig(channels=8, depths=(1,), state=2, scale=3)).eval()
    checkpoint.save(model, tmp_path / "small.safetensors")
    image = torch.rand(3, 6, 7)
    with torch.no_grad():
        expected = model(image[None])[0]
    sr = load(str(tmp_path / "small.safetensors"))(image[None])[0]
    torch.testing.assert_close(sr, expected)
    pixels = (image * 255).round().to(torch.uint8)
    shown = Upscaler.from_file("student")(pixels.permute(1, 2, 0).numpy())
    sr = (load("student")(pixels[None] / 255)[0].clamp(0, 1) * 255).permute(1, 2, 0)
    assert (sr - torch.from_numpy(shown)).abs().max() < 0.6  # it was rounded


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "pupil",
            UsageError,
            "no model named pupil; there is student, student-x2, student-x3, paper, paper-ntire, "
            "or name",
        ),
        ("student-fp16", UsageError, "no model named student-fp16; there is student, student-x2,"),
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
        ("networks_of_a_test:number", IncompatibleModelError, "an object of type int, not"),
        ("networks_of_a_test:lazy", IncompatibleModelError, "has a weight without a size yet; run"),
        ("broken_of_a_test:make", DvmsrError, "cannot be imported (SyntaxError: "),
        ("raising_of_a_test:make", DvmsrError, "cannot be imported (ValueError: no luck)"),
        ("needing_of_a_test:make", MissingComponentError, "needs the package no_such_package"),
        ("networks_of_a_test:needing", MissingComponentError, "needs the package no_such_package"),
        ("networks_of_a_test:outdated", MissingComponentError, "needs json.no_such_part, which"),
    ],
)
def test_refusals(networks: str, name: str, kind: type[DvmsrError], message: str) -> None:
    with pytest.raises(DvmsrError) as error:
        load(name)
    assert type(error.value) is kind
    assert message in str(error.value) and "\n" not in str(error.value)
