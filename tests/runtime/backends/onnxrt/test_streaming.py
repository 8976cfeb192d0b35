"""Strips through every backend against PyTorch on the whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_model import ONNX_BACKENDS, Models

from dvmsr.data.natural_image import natural_image
from dvmsr.errors import DvmsrError, IncompatibleModelError
from dvmsr.runtime.backends.onnxrt.network import OnnxNetwork
from dvmsr.runtime.backends.onnxrt.streaming import StreamingNetwork, open_onnx
from dvmsr.runtime.backends.pytorch.network import TorchNetwork

LIMIT = 1e-5


def truth(models: Models, image: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return models.network(torch.from_numpy(image)).numpy()


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_whole_images_and_strips(models: Models, streaming_file: Path, backend: str) -> None:
    network = open_onnx(streaming_file, backend, 1)
    assert isinstance(network, StreamingNetwork)
    image = natural_image((2, 12, 7))
    expected = truth(models, image)
    np.testing.assert_allclose(network(image), expected, atol=LIMIT)
    for _ in range(2):  # states are not left from the image before
        pieces = list(network.stream(np.split(image, [1, 2, 7, 9], 2)))
        np.testing.assert_allclose(np.concatenate(pieces, 2), expected, atol=LIMIT)
    assert len(pieces) > 1


def test_a_checkpoint_streams(models: Models) -> None:
    image = natural_image((1, 12, 7))
    pieces = list(TorchNetwork(models.pth, None).stream(np.split(image, [8, 9], 2)))
    np.testing.assert_allclose(np.concatenate(pieces, 2), truth(models, image), atol=LIMIT)
    assert len(pieces) == 3


def test_layers_are_those_of_the_whole_image(models: Models, streaming_file: Path) -> None:
    image = natural_image((1, 9, 7))
    ordinary = OnnxNetwork(models.onnx, "portable", 1)
    streaming = open_onnx(streaming_file, "portable", 1)
    names = ordinary.layers()
    assert streaming.layers() == names
    expected = ordinary.layer_values(image, names)
    for name, value in streaming.layer_values(image, names).items():
        np.testing.assert_allclose(value, expected[name], atol=LIMIT, err_msg=name)


def test_an_ordinary_file_does_not_stream(models: Models, streaming_file: Path) -> None:
    network = open_onnx(models.onnx, "portable", 1)
    assert not network.streams
    with pytest.raises(IncompatibleModelError, match="whole images only"):
        network.stream([natural_image((1, 3, 3))])
    with pytest.raises(IncompatibleModelError, match="other inputs and outputs"):
        OnnxNetwork(streaming_file, "portable", 1)


def test_a_first_strip_of_wrong_type_is_one_sentence(streaming_file: Path) -> None:
    network = open_onnx(streaming_file, "portable", 1)
    strips = [natural_image((1, 9, 7)), natural_image((1, 2, 7))[:, :2]]
    with pytest.raises(DvmsrError, match="strips of one image"):
        list(network.stream(strips))


@pytest.mark.parametrize("damage", ["state of another size", "weights of another size"])
@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_damage_that_shows_when_it_runs(
    streaming_file: Path, tmp_path: Path, backend: str, damage: str
) -> None:
    model = onnx.load(streaming_file)
    if damage.startswith("state"):
        (declared,) = (value for value in model.graph.input if value.name == "skip.rows")
        declared.type.tensor_type.shape.dim[1].dim_value += 1
    else:
        name = "conv_after_body.weight"
        (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        fewer = numpy_helper.to_array(weights)[:, 1:]
        weights.CopyFrom(numpy_helper.from_array(fewer.copy(), name))
    onnx.save(model, path := tmp_path / "damaged.onnx")
    network = open_onnx(path, backend, 1)
    with pytest.raises(
        IncompatibleModelError, match=r"damaged\.onnx cannot be computed \(.*export"
    ):
        network(natural_image((1, 9, 7)))
