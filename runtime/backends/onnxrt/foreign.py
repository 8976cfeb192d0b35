"""ONNX files of other programs: one RGB picture (1, 3, h, w) in, a larger one out.

Such a file does not say by how much it enlarges, nor whether it takes values from 0 to 1 or from 0
to 255. Both are found by running it on a synthetic picture.
"""

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dvmsr.data.natural_image import natural_image
from dvmsr.errors import DvmsrError, IncompatibleModelError, UsageError
from dvmsr.runtime.backends.onnxrt.network import (
    FATAL_ONLY,
    first_line,
    open_session,
    run_session,
)
from dvmsr.runtime.images.arrays import from_planes, to_planes
from dvmsr.utils.paths import check_encodable, check_input, exists

PEAKS = (1, 255)
"""The brightest value that such a network may take and give."""
LEAST_PSNR = 20.0
"""In dB, of a result that is reduced again, against its input; what is below is no enlarged copy.
On the synthetic picture bicubic interpolation has 32 dB, RLFN 37, and 26 with the wrong range."""


def split(spec: str) -> tuple[str, int | None]:
    """`rlfn.onnx@255` -> (`rlfn.onnx`, 255); None where no range is named.

    Raises:
        UsageError: for another range.
    """
    model, at, peak = spec.rpartition("@")
    if not at or not model.lower().endswith(".onnx") or exists(Path(spec)):
        return spec, None
    if peak not in map(str, PEAKS):
        raise UsageError(
            f"{spec} names no range of values; write @1 for 0 to 1 or @255 for 0 to 255"
        )
    return model, int(peak)


class ForeignUpscaler:
    """Enlarges pictures with another program's network, by ONNX Runtime on the CPU.

    Args:
        path: an ONNX file with one input (1, 3, h, w) and one output (1, 3, s*h, s*w), RGB, FP32.
        peak: the brightest value, 1 or 255; None finds it and says so in a warning.

    Raises:
        UsageError: if there is no such file.
        MissingComponentError, DvmsrError: as `run_session`.
        IncompatibleModelError: if it is not of that kind.
    """

    def __init__(self, path: Path, peak: int | None = None) -> None:
        check_encodable(path)
        check_input(path)
        self.path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL_ONLY
        try:
            self._session = open_session(os.fspath(path), options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise IncompatibleModelError(
                f"{path} cannot be loaded by ONNX Runtime ({first_line(error)}); export it again"
            ) from None
        self._size = self._declared_size()
        sample = natural_image((1, *self._size))
        results = {p: self._run(sample, p) for p in ((peak,) if peak else PEAKS)}
        self.scale: int = _scale(sample.shape, results[peak or PEAKS[0]].shape, path)
        """How many times larger each side becomes."""
        self._peak = peak or self._best_peak(sample, results)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB (h, w, 3) -> (s*h, s*w, 3).

        Raises:
            IncompatibleModelError: if the network takes another size only or gives another size
                than it did before.
            DvmsrError: if it computes values that are not finite, or as `run_session`.
        """
        height, width = image.shape[:2]
        if any(n not in (None, side) for n, side in zip(self._size, (height, width), strict=True)):
            rows, columns = (n or "any" for n in self._size)
            raise IncompatibleModelError(
                f"{self.path} takes pictures of {columns}x{rows} pixels only, not "
                f"{width}x{height}; export it with dynamic axes"
            )
        result = self._run(to_planes(image), self._peak)
        wanted = (1, 3, self.scale * height, self.scale * width)
        if result.shape != wanted:
            raise IncompatibleModelError(
                f"{self.path} makes an output of shape {result.shape} where its scale of "
                f"{self.scale} promises {wanted}; export it with dynamic axes"
            )
        if not np.isfinite(result).all():
            raise DvmsrError(
                f"{self.path} computes values that are not finite; name the other range of values "
                "with @1 or @255"
            )
        return from_planes(result, np.uint8)

    def _declared_size(self) -> tuple[int | None, int | None]:
        """Height and width that the file insists on."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        types = [value.type for value in (*inputs, *outputs)]
        if types == ["tensor(float)"] * 2 and len(inputs) == 1:
            shape = [n if isinstance(n, int) else None for n in inputs[0].shape]
            if len(shape) == 4 and shape[0] in (None, 1) and shape[1] in (None, 3):
                return shape[2], shape[3]
        raise IncompatibleModelError(
            f"{self.path} does not take one RGB picture of shape (1, 3, h, w) and type float and "
            "give one; export it like that"
        )

    def _run(self, planes: NDArray[np.float32], peak: int) -> NDArray[np.float32]:
        """(1, 3, h, w) in [0, 1] -> whatever comes out, in [0, 1]."""
        feeds: dict[str, NDArray[Any]] = {self._session.get_inputs()[0].name: planes * peak}
        names = [self._session.get_outputs()[0].name]
        result: NDArray[np.float32] = run_session(self._session, names, feeds, self.path)[0]
        return result / np.float32(peak)

    def _best_peak(
        self, sample: NDArray[np.float32], results: dict[int, NDArray[np.float32]]
    ) -> int:
        """The one whose result, reduced again, is closest to the picture."""
        _, _, height, width = sample.shape
        psnr = {}
        for peak, result in results.items():
            blocks = result.reshape(1, 3, height, self.scale, width, self.scale)
            error = float(np.mean((blocks.mean((3, 5)) - sample) ** 2))
            psnr[peak] = -10 * math.log10(error + 1e-12) if math.isfinite(error) else -math.inf
        best = max(psnr, key=lambda peak: psnr[peak])
        if psnr[best] < LEAST_PSNR:
            raise IncompatibleModelError(
                f"{self.path} makes no larger copy of an RGB picture, with values from 0 to 1 or "
                "from 0 to 255; if it should, name the range with @1 or @255"
            )
        warnings.warn(
            f"{self.path}: values from 0 to {best} give the better picture and are taken; "
            f"{self.path}@{best} would say so",
            stacklevel=3,
        )
        return best


def _scale(given: tuple[int, ...], made: tuple[int, ...], path: Path) -> int:
    """How much larger the output's shape is than the input's, a whole number.

    Raises:
        IncompatibleModelError: if it is not.
    """
    scale = made[-1] // given[-1] if made else 0
    if scale < 1 or made != (*given[:2], scale * given[2], scale * given[3]):
        raise IncompatibleModelError(
            f"{path} makes an output of shape {made} from a picture of shape {given}, which is not "
            "enlarged by a whole number; name a network for super-resolution"
        )
    return scale
