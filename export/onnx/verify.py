"""Runs an exported file against the PyTorch network that it came from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from dvmsr.data.natural_image import natural_image
from dvmsr.errors import IncompatibleModelError
from dvmsr.export.onnx.parity import Parity
from dvmsr.kernels import cpu
from dvmsr.model import DVMSR
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.network import OnnxNetwork
from dvmsr.runtime.backends.onnxrt.onnx_file import read_header
from dvmsr.runtime.backends.onnxrt.streaming import open_onnx
from dvmsr.runtime.parity.difference import measure
from dvmsr.utils.threads import bounded

SHAPES = ((2, 40, 56), (1, 61, 43))
"""Batch, height and width of the inputs to a dynamic model; the second has an odd token count."""
STRIP = 7
"""Rows in which they come to a streaming model."""


def verify(
    path: Path,
    reference: DVMSR,
    static_shape: tuple[int, int, int] | None,
    progress: Callable[[str], None],
) -> list[Parity]:
    """Check a file's structure, and compare its output through each available backend.

    Raises:
        IncompatibleModelError: if this onnxruntime cannot run the file.
        MissingComponentError: if the native operators are installed but cannot be loaded.
    """
    onnx.checker.check_model(str(path), full_check=True)
    onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    images = [natural_image(shape) for shape in ([static_shape] if static_shape else SHAPES)]
    truths = [_reference_output(reference, image) for image in images]
    results = []
    for backend in _backends(path, progress):
        network = _load(path, backend)
        for image, truth in zip(images, truths, strict=True):
            results.append(compare(backend, image, _output(network, image), truth))
            progress(str(results[-1]))
    return results


def compare(
    backend: str, image: NDArray[Any], output: NDArray[Any], truth: NDArray[np.float32]
) -> Parity:
    """The difference of two outputs (B, 3, s*H, s*W) for an image (B, 3, H, W)."""
    difference = measure(output, truth)
    return Parity(backend, _shape(image), difference.max_abs, difference.psnr)


def _shape(image: NDArray[Any]) -> tuple[int, int, int]:
    batch, _, height, width = image.shape
    return batch, height, width


def _reference_output(reference: DVMSR, image: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        output: NDArray[np.float32] = reference(torch.from_numpy(image)).numpy()
    return output


def _output(network: OnnxNetwork, image: NDArray[np.float32]) -> NDArray[np.float32]:
    if not network.streams:
        return network(image)
    strips = np.split(image, range(STRIP, image.shape[2], STRIP), 2)
    return np.concatenate(list(network.stream(strips)), 2)


def _backends(path: Path, progress: Callable[[str], None]) -> list[str]:
    if not read_header(path).has_operators:
        return ["portable"]
    if cpu.library_path() is None:
        progress(f"native operators not verified: dvmsr was built without them; {cpu.REMEDY}")
        return ["portable"]
    return ["native", "portable"]


def _load(path: Path, backend: str) -> OnnxNetwork:
    try:
        return open_onnx(path, backend, bounded(None))
    except IncompatibleModelError as error:
        raise IncompatibleModelError(
            f"onnxruntime {onnxruntime.__version__} cannot run the exported model; "
            f"choose a lower opset or upgrade it ({error})"
        ) from None
