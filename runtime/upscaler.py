"""The network as a function from an image to a larger image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dvmsr.config import DVMSRConfig
from dvmsr.errors import DvmsrError, IncompatibleModelError, UsageError
from dvmsr.runtime import memory, strip_height
from dvmsr.runtime.backends import table
from dvmsr.runtime.backends.base import Enlarger, Network, PixelNetwork
from dvmsr.runtime.images.alpha import extend_colours
from dvmsr.runtime.images.arrays import check_values, from_planes, to_planes
from dvmsr.runtime.images.decode import normalise
from dvmsr.utils.threads import bounded
from dvmsr.weights import registry

ImageLike = TypeVar("ImageLike", Image.Image, NDArray[Any])


class Upscaler:
    """Enlarges images with a trained network; make one with `from_file`.

    May be called by several threads at once. Pickled, it is what `from_file` was asked for, and
    opens its model again where it is unpickled.
    """

    def __init__(
        self,
        network: Enlarger,
        backend: str,
        model: str,
        strip: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        self.network: Enlarger = network
        """What computes, without conversions, rounding or clipping."""
        self.config: DVMSRConfig | None = network.config if isinstance(network, Network) else None
        """The network's architecture; None for another network than DVMSR."""
        self.backend: str = backend
        """What computes: `native`, `portable`, `torch`, `cuda` or `tensorrt`."""
        native_parts = backend == "native" and network.in_parts
        self.computes: str = memory.IN_PARTS if native_parts else backend
        """What computes, as `memory` tells apart."""
        self.precision: str = network.precision
        """Type of the activations: `fp32`, `fp16` or `bf16`."""
        self.model: str = model
        """The model's file."""
        self.strip: int | None = strip
        """Rows that are computed at once; None leaves it to `rows_at_once`."""
        self.memory_limit: int | None = memory_limit
        """Bytes that an image may take; None where that is not limited."""
        self._asked: tuple[Any, ...] | None = None
        """The arguments of `from_file`."""
        if (strip or memory_limit) and isinstance(network, PixelNetwork):
            raise UsageError(
                f"{model} computes on a GPU; leave out the height of strips and the memory limit"
            )
        if strip and self.config is None:
            raise UsageError(
                f"{model} is another network than DVMSR and computes whole images only; leave out "
                "the height of strips"
            )
        if strip and self.config and self.config.bidirectional:
            raise UsageError(
                f"{model} is bidirectional: its backward scans begin at the last pixel of the "
                "image, so it has no strips; leave out their height"
            )
        if strip and not network.streams:
            raise UsageError(
                f"{model} computes whole images only; leave out the height of strips, or export a "
                "model with --streaming"
            )

    @classmethod
    def from_file(
        cls,
        model: str | os.PathLike[str] = registry.DEFAULT,
        backend: str = "auto",
        threads: int | None = None,
        strip: int | None = None,
        memory_limit: int | None = None,
        trust_engine: bool = False,
        time_limit: float | None = None,
    ) -> Upscaler:
        """Load a model.

        Args:
            model: the name of a model (`paper` and `paper-ntire` are fetched once), or an exported
                `.onnx` file, a `.safetensors` or `.pth` checkpoint, or a TensorRT `.engine`; also
                the `.onnx` file of another network that takes one RGB picture and gives a larger
                one, as a whole. `FILE@255` says that
                its values go from 0 to 255, `FILE@1` to 1; otherwise that is tried out.
            backend: `native` (ONNX Runtime with dvmsr's own operators), `portable` (ONNX Runtime
                alone, slower), `cuda` (ONNX Runtime on a GPU with dvmsr's own operators), `torch`
                or `tensorrt`. `auto` takes `torch` for a checkpoint, `tensorrt` for an engine,
                else `native`, else `portable` with a warning.
            threads: how many to compute with, at most one per processor; None leaves it to the
                backend.
            strip: rows of the image to compute at once, for models that stream (the bundled one,
                checkpoints, and files exported for that); None takes what is fast and fits.
            memory_limit: bytes that an image may take, about; None means half of what is free for
                models that stream, and else all that is free.
            trust_engine: whether code for the processor in a TensorRT engine may run: that of a
                plugin that it embeds, or of TensorRT in a version-compatible one. All engines run
                code on the GPU.
            time_limit: most seconds for one run of an ONNX file; None for any.

        Raises:
            UsageError: if there is no such model, backend or number of threads, or they do not
                fit, or the model does not stream and is to, or an engine carries code that is not
                trusted.
            DvmsrError: if the file cannot be read.
            IncompatibleModelError: if it is not a model of this network and enlarges no pictures,
                or an engine for another GPU, TensorRT or plugin.
            MissingComponentError: if the backend or its GPU is missing.
        """
        name, peak = registry.split_range(os.fspath(model))
        threads = bounded(threads)
        weights = backend == "torch" and name in registry.CHECKPOINT_NAMES
        path = registry.find_checkpoint(name) if weights else registry.find_model(name, True)
        chosen = table.choose(backend, name, path)
        if chosen.on_gpu:
            path = registry.find_model(name)
        network = chosen.load(
            table.Request(name, path, chosen.name, threads, trust_engine, time_limit, peak)
        )
        network.time_limit = time_limit
        upscaler = cls(network, chosen.name, str(path), strip, memory_limit)
        asked = name if name in registry.MODELS else os.path.abspath(name)  # noqa: PTH100
        if upscaler.config is None:
            asked = f"{asked}@{network.peak}"  # which is not to be found out again
        upscaler._asked = (asked, backend, threads), trust_engine
        return upscaler

    def __reduce__(self) -> tuple[Any, ...]:
        """
        Raises:
            UsageError: if it was not made by `from_file`.
        """
        if self._asked is None:
            raise UsageError(f"{self.model} was not opened by from_file; pickle one that was")
        first, trust_engine = self._asked
        last = (self.strip, self.memory_limit, trust_engine, self.network.time_limit)
        return type(self).from_file, (*first, *last)

    @property
    def scale(self) -> int:
        """How many times larger each side becomes."""
        return self.network.scale

    def check_memory(
        self, height: int, width: int, name: str = "the image", held: int | None = None
    ) -> None:
        """Whether an image of that size can be processed in the memory that is available.

        Args:
            name: what the message calls the image.
            held: as of `rows_at_once`.

        Raises:
            DvmsrError: if it needs more.
        """
        if isinstance(self.network, PixelNetwork):
            self.network.check_size(height, width, name)
        if self.config is None:
            memory.check_result(self.scale, height, width, name, self.memory_limit)
            return
        rows = self.rows_at_once(height, width, held)
        strips = None if rows == height and held is None else rows
        memory.check(
            *(self.config, self.computes, height, width, name, strips, self.memory_limit), held=held
        )

    def fits(self, height: int, width: int) -> bool:
        """Whether an image of that size and its result may be in memory as a whole: within the
        memory limit or, without one, half of what is free."""
        if not memory.known(self.computes):
            return True
        try:
            limit = memory.budget(self.memory_limit)
            if self.config is None:
                memory.check_result(self.scale, height, width, "", limit)
                return True
            rows = self.rows_at_once(height, width)
            strips = None if rows == height else rows
            memory.check(self.config, self.computes, height, width, "", strips, limit)
        except DvmsrError:
            return False
        return True

    def rows_at_once(self, height: int, width: int, held: int | None = None) -> int:
        """Rows of an image of that size that are computed at once; `height` for all.

        Args:
            held: None for an image in memory; for one that is read and written by rows, the bytes
                that its decoder needs beyond some rows.
        """
        if not self.network.streams or self.config is None:
            return height
        if self.strip:
            return min(self.strip, height)
        return strip_height.choose(
            self.config, self.computes, height, width, self.memory_limit, held
        )

    def stream(
        self, strips: Iterable[NDArray[Any]], height: int, width: int
    ) -> Iterator[NDArray[Any]]:
        """Enlarge an image that comes in strips of rows and is never in memory as a whole.

        Args:
            strips: (rows, W, 3) from top to bottom, each of any number of rows; uint8, uint16 or
                floating-point with values in [0, 1].
            height, width: of the image.

        Yields:
            The result's rows, (some, s*W, 3) of the same type, some rows of the input late.

        Raises:
            UsageError: if a strip is of another type.
            IncompatibleModelError: if the network does not stream.
            DvmsrError: if it fails.
        """
        dtype: list[np.dtype[Any]] = []

        def planes() -> Iterator[NDArray[np.float32]]:
            for strip in strips:
                dtype[:] = [strip.dtype]
                yield to_planes(strip)

        for piece in self._checked(self.network.stream(planes()), height, width):
            yield from_planes(piece, dtype[0])

    def __call__(
        self, image: ImageLike, show: Callable[[int, int], None] = lambda done, of: None
    ) -> ImageLike:
        """Enlarge one image.

        Args:
            image: a Pillow image of any 8- or 16-bit kind (see `decode.normalise`; transparency
                is enlarged by bicubic interpolation, and what it hides does not show), or an RGB
                array (H, W, 3) of type uint8, uint16, or of a floating-point type with values in
                [0, 1].
            show: called now and then with the number of its rows that are done, and of all.

        Returns:
            A Pillow image of mode RGB, L, RGBA or LA with the same colour profile, or an array
            (s*H, s*W, 3) of the same type and range.

        Raises:
            UsageError: if it is none of these.
            DvmsrError: if there is not enough memory.
        """
        if isinstance(image, Image.Image):
            return self._enlarge_picture(image, show)
        return cast(ImageLike, self._enlarge_array(image, show))

    def _enlarge_picture(self, image: Image.Image, show: Callable[[int, int], None]) -> Image.Image:
        name = getattr(image, "filename", "") or "the image"
        image = normalise(image, name, remedy="give an array of type uint16 to keep them")
        colours = extend_colours(image).convert("RGB")
        result = Image.fromarray(self._enlarge_array(np.asarray(colours), show))
        if image.mode in ("L", "LA"):
            result = result.convert("L")
        if image.mode in ("LA", "RGBA"):
            alpha = image.getchannel("A")
            result.putalpha(alpha.resize(result.size, Image.Resampling.BICUBIC))
        result.info = dict(image.info)
        return result

    def _enlarge_array(self, image: NDArray[Any], show: Callable[[int, int], None]) -> NDArray[Any]:
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
            got = f"shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UsageError(f"the image must be a Pillow image or an array (H, W, 3), not {got}")
        if 0 in image.shape:
            raise UsageError(f"the image has no pixels (shape {image.shape})")
        self.check_memory(*image.shape[:2])
        if isinstance(self.network, PixelNetwork):
            check_values(image)
            exact = image if image.dtype in (np.uint8, np.uint16) else image.astype(np.float32)
            return self.network.enlarge(exact).astype(image.dtype, copy=False)
        height, width = image.shape[:2]
        rows = self.rows_at_once(height, width)
        if rows == height:
            return self._assembled([self.network(to_planes(image))], image, show)
        strips = (to_planes(image[start : start + rows]) for start in range(0, height, rows))
        return self._assembled(self.network.stream(strips), image, show)

    def _assembled(
        self,
        pieces: Iterable[NDArray[np.float32]],
        image: NDArray[Any],
        show: Callable[[int, int], None],
    ) -> NDArray[Any]:
        """The result, of the image's type, from its rows (1, 3, some, s*W)."""
        height, width = (self.scale * side for side in image.shape[:2])
        result = np.empty((height, width, 3), image.dtype)
        done = 0
        for piece in self._checked(pieces, *image.shape[:2]):
            result[done : done + piece.shape[2]] = from_planes(piece, image.dtype)
            done += piece.shape[2]
            show(done // self.scale, image.shape[0])
        return result

    def _checked(
        self, pieces: Iterable[NDArray[np.float32]], height: int, width: int
    ) -> Iterator[NDArray[np.float32]]:
        """The rows (1, 3, some, s*W) of what an image of that size becomes.

        Raises:
            IncompatibleModelError: if they are not as many or as wide as they must be.
            DvmsrError: if a value is not finite.
        """
        height, width = self.scale * height, self.scale * width
        done = 0
        for piece in pieces:
            batch, channels, rows, columns = piece.shape
            if (batch, channels, columns) != (1, 3, width) or done + rows > height:
                raise self._misfit(piece.shape, height, width)
            if not np.isfinite(piece).all():
                raise DvmsrError(
                    f"{self.model} computes values that are not finite; export it again"
                )
            done += rows
            yield piece
        if done != height:
            raise self._misfit((1, 3, done, width), height, width)

    def _misfit(self, shape: tuple[int, ...], height: int, width: int) -> IncompatibleModelError:
        return IncompatibleModelError(
            f"{self.model} makes an output of shape {shape} where its scale of {self.scale} "
            f"promises {(1, 3, height, width)}; export it again"
        )
