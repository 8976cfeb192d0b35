"""What is asked of a network, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dvmsr.errors import DvmsrError, IncompatibleModelError
from dvmsr.lam.torch_module import TorchModule
from dvmsr.utils import memory


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
