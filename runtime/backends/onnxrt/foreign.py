"""Super-resolution networks other than DVMSR in ONNX files: one RGB picture (1, 3, h, w) in, a
larger one out.

Such a file does not say by how much it enlarges, nor whether it takes values from 0 to 1 or from 0
to 255. Both are found by running it on a synthetic picture.
"""

import math
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dvmsr.data.natural_image import USUAL_SHAPE, natural_image
from dvmsr.errors import DvmsrError, IncompatibleModelError
from dvmsr.runtime.backends.base import Enlarger
from dvmsr.runtime.backends.examples import read_shapes
from dvmsr.runtime.backends.onnxrt.network import DTYPES, open_on, options_for, run_session
from dvmsr.runtime.backends.onnxrt.onnx_file import check_bodies, check_operators, read_facts
from dvmsr.utils.paths import check_encodable
from dvmsr.weights.registry import PEAKS

LEAST_PSNR = 20.0
"""In dB, of a result that is reduced again, against its input; what is below is no enlarged copy.
On the synthetic picture bicubic interpolation has 32 dB, RLFN 37, and 26 with the wrong range."""
_REMEDY = (
    "give pictures of sizes that the network takes, such as multiples of 8 or 64, or smaller ones"
)


class ForeignNetwork(Enlarger):
    """Another network in an ONNX file, FP32 or FP16, with dvmsr's operators or without.

    It computes whole images. May be called by several threads.

    Args:
        path: an ONNX file with one input (1, 3, h, w) and one output (1, 3, s*h, s*w), RGB.
        backend, threads: as of `OnnxTensors`.
        peak: the brightest value, one of `PEAKS`; None finds it and says so in a warning.
        time_limit: most seconds for one run; None for any.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: as `open_session` and `run_session`.
        IncompatibleModelError: if it is not of that kind.
        MissingComponentError: if the library or the GPU is missing or does not load.
    """

    scale: int = 1

    def __init__(
        self,
        path: Path,
        backend: str,
        threads: int | None,
        peak: int | None = None,
        time_limit: float | None = None,
    ) -> None:
        check_encodable(path)
        facts = read_facts(path)
        check_operators(path, facts)
        if backend == "portable":
            check_bodies(path, facts)
        self.path, self.time_limit = path, time_limit
        options = options_for(backend, threads, facts.has_half)
        self._session = open_on(backend, os.fspath(path), options, path)
        self._size = self._declared_size()
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._dtype = DTYPES[self._session.get_inputs()[0].type]
        half = "fp16" if self._dtype is np.float16 else "fp32"
        self.precision = facts.metadata.get("dvmsr.precision", half)
        self.usual_shape = (1, *self._size)
        sample = natural_image((1, *self._sample_size(facts.metadata)))
        results = {p: self._run(sample, p) for p in ((peak,) if peak else PEAKS)}
        self.scale = _scale(sample.shape, results[peak or PEAKS[0]].shape, path)
        self.peak = peak or self._best_peak(sample, results)

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """
        Raises:
            IncompatibleModelError: if the network takes another size only or gives another size
                than it did before.
            DvmsrError: if it computes values that are not finite, or as `run_session`.
        """
        batch, channels, height, width = image.shape
        if any(n not in (None, side) for n, side in zip(self._size, (height, width), strict=True)):
            rows, columns = (n or "any" for n in self._size)
            raise IncompatibleModelError(
                f"{self.path} takes pictures of {columns}x{rows} pixels only, not "
                f"{width}x{height}; export it with dynamic axes"
            )
        result = self._run(image, self.peak)
        wanted = (batch, channels, self.scale * height, self.scale * width)
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
        return result

    def _declared_size(self) -> tuple[int | None, int | None]:
        """Height and width that the file insists on."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) == len(outputs) == 1 and {inputs[0].type, outputs[0].type} <= set(DTYPES):
            shape = [n if isinstance(n, int) else None for n in inputs[0].shape]
            if len(shape) == 4 and shape[0] in (None, 1) and shape[1] in (None, 3):
                return shape[2], shape[3]
        takes = ", ".join(f"{value.name} {value.shape} of {value.type}" for value in inputs)
        raise IncompatibleModelError(
            f"{self.path} does not take one RGB picture (1, 3, h, w) and give one: it takes "
            f"{takes or 'nothing'} and gives {len(outputs)} output(s); run it with "
            "dvmsr.runtime.open_model"
        )

    def _sample_size(self, metadata: dict[str, str]) -> tuple[int, int]:
        """Height and width that the network takes: of an exported file, multiples of those of the
        example that it was made with, as networks with windows take them alone."""
        example = read_shapes(self.path, metadata).get(self._input, ())
        told = example[2:] if len(example) == 4 else (1, 1)
        usual = [-(-size // step) * step for size, step in zip(USUAL_SHAPE[1:], told, strict=True)]
        height, width = (fixed or size for fixed, size in zip(self._size, usual, strict=True))
        return height, width

    def _run(self, planes: NDArray[np.float32], peak: int) -> NDArray[np.float32]:
        """(1, 3, h, w) in [0, 1] -> whatever comes out, in [0, 1]."""
        feeds = {self._input: (planes * np.float32(peak)).astype(self._dtype, copy=False)}
        (result,) = run_session(
            *(self._session, [self._output], feeds, self.path, self.time_limit), remedy=_REMEDY
        )
        return result.astype(np.float32, copy=False) / np.float32(peak)

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
            f"{path} makes no larger copy of a picture: of shape {given} becomes {made}, which is "
            "not enlarged by a whole number; name a network for super-resolution"
        )
    return scale
