"""`torch.cuda.device` around PyTorch code for a CPU."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("device", [torch.device("cpu"), "cpu", None], ids=str)
def test_does_nothing_for_a_cpu(device: object) -> None:
    with torch.cuda.device(device):
        assert torch.ones(3).sum() == 3
    with pytest.raises(KeyError), torch.cuda.device(device):
        raise KeyError


@pytest.mark.usefixtures("installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused_as_before() -> None:
    with pytest.raises((AssertionError, RuntimeError)), torch.cuda.device(0):
        pass
