"""Runs an exported file against the PyTorch network that it came from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from dvmsr import native
from dvmsr.errors import IncompatibleModelError
from dvmsr.export.parity import Parity
from dvmsr.model import DVMSR
from dvmsr.runtime.session import OnnxNetwork

SHAPES = ((2, 40, 56), (1, 61, 43))
"""Batch, height and width of the inputs to a dynamic model; the second has an odd token count."""


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
    for backend in _backends(progress):
        network = _load(path, backend)
        for image, truth in zip(images, truths, strict=True):
            results.append(compare(backend, image, network(image), truth))
            progress(str(results[-1]))
    return results


def compare(
    backend: str, image: NDArray[Any], output: NDArray[Any], truth: NDArray[np.float32]
) -> Parity:
    """The difference of two outputs (B, 3, s*H, s*W) for an image (B, 3, H, W)."""
    if output.shape != truth.shape:
        return Parity(backend, _shape(image), math.inf, -math.inf)
    difference = output.astype(np.float64) - truth
    mean_square = float(np.mean(difference**2))
    psnr = -10 * math.log10(mean_square) if mean_square else math.inf
    return Parity(backend, _shape(image), float(np.abs(difference).max()), psnr)


def natural_image(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Pictures with the statistics of photographs, always the same: (B, 3, H, W) in [0, 1].

    A 1/f amplitude spectrum with correlated colours, and two sharp edges.
    """
    batch, height, width = shape
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1.0
    white = np.fft.rfft2(rng.standard_normal((batch, 3, height, width)))
    noise = np.fft.irfft2(white / frequency, s=(height, width))
    noise = 0.3 * noise + 0.7 * noise.mean(1, keepdims=True)
    image = 0.45 + 0.18 * noise / (noise.std() + 1e-6)
    y, x = np.mgrid[:height, :width]
    image[:, :, 3 * y + x > 1.5 * (height + width)] += 0.3
    image[:, :, (y - height / 3) ** 2 + (x - width / 3) ** 2 < (min(height, width) / 5) ** 2] -= 0.3
    return image.clip(0, 1).astype(np.float32)


def _shape(image: NDArray[Any]) -> tuple[int, int, int]:
    batch, _, height, width = image.shape
    return batch, height, width


def _reference_output(reference: DVMSR, image: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        output: NDArray[np.float32] = reference(torch.from_numpy(image)).numpy()
    return output


def _backends(progress: Callable[[str], None]) -> list[str]:
    if native.library_path() is None:
        progress(f"native operators not verified: dvmsr was built without them; {native.REMEDY}")
        return ["portable"]
    return ["native", "portable"]


def _load(path: Path, backend: str) -> OnnxNetwork:
    try:
        return OnnxNetwork(path, backend, threads=None)
    except IncompatibleModelError as error:
        raise IncompatibleModelError(
            f"onnxruntime {onnxruntime.__version__} cannot run the exported model; "
            f"choose a lower opset or upgrade it ({error})"
        ) from None
