"""A checkpoint in PyTorch behind the interface of all backends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_model import Models

from dvmsr.data.natural_image import natural_image
from dvmsr.errors import DvmsrError, IncompatibleModelError
from dvmsr.runtime.backends.pytorch.network import TorchNetwork


def test_it_computes_what_the_network_does(models: Models) -> None:
    image = natural_image((2, 5, 7))
    with torch.inference_mode():
        expected = models.network(torch.from_numpy(image)).numpy()
    np.testing.assert_array_equal(TorchNetwork(models.safetensors, None)(image), expected)


def test_layers_are_in_the_order_of_computation_and_end_with_the_output(models: Models) -> None:
    network = TorchNetwork(models.safetensors, None)
    image = natural_image((1, 5, 7))
    names = network.layers()
    assert (names[0], names[-1]) == ("conv_first", "output")
    values = network.layer_values(image, names)
    assert set(values) == set(names)
    np.testing.assert_array_equal(values["output"], network(image))


def test_a_failure_of_pytorch_names_the_checkpoint(models: Models) -> None:
    network = TorchNetwork(models.safetensors, None)
    with pytest.raises(DvmsrError, match=r"PyTorch failed on .*small\.safetensors \("):
        network(np.zeros((1, 4, 5, 7), np.float32))


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(IncompatibleModelError):
        TorchNetwork(path, None)
