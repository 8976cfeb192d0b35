"""What a backend offers to the rest of the runtime."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.config import DVMSRConfig
from dvmsr.errors import IncompatibleModelError, UsageError

_NO_LAYERS = (
    "only checkpoints and .onnx files on a processor show their layers; leave out --layers or name "
    "one of these on both sides"
)


class Enlarger(ABC):
    """What enlarges pictures: (B, 3, H, W) FP32 RGB in [0, 1] -> (B, 3, s*H, s*W) FP32."""

    precision: str
    """Type of the activations: `fp32`, `fp16` or `bf16`."""
    usual_shape: tuple[int | None, int | None, int | None] = (None, None, None)
    """Batch, height and width that it takes alone or is fastest at; None where any will do."""
    streams: bool = False
    """Whether it can compute an image strip by strip."""
    in_parts: bool = False
    """Whether it computes mixers part by part."""
    time_limit: float | None = None
    """Most seconds for one run of a graph that may have no end, an ONNX file's; None for any."""
    clock: str = "wall clock"
    """What `seconds` reads: `wall clock` or `CUDA events`."""
    peak: int = 1
    """The brightest value that the model itself takes and gives."""

    @property
    @abstractmethod
    def scale(self) -> int:
        """How many times larger each side becomes."""

    @abstractmethod
    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]: ...

    def stream(self, strips: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Enlarge an image that comes in strips of rows; see `dvmsr.strips`. The result is that of
        the whole image up to rounding.

        Args:
            strips: (B, 3, rows, W) from top to bottom, each of any number of rows.

        Yields:
            The result's rows, (B, 3, some, s*W), some rows of the input late.

        Raises:
            IncompatibleModelError: if the network does not stream.
        """
        raise IncompatibleModelError("this model computes whole images only, not strips of them")

    def seconds(self, image: NDArray[np.float32]) -> float:
        """Compute once and tell how long it took.

        A backend on a GPU tells what events on its stream measured, from the input in device
        memory to the output there, without the copies between host and device.
        """
        start = time.perf_counter()
        self(image)
        return time.perf_counter() - start

    def device_memory(self) -> int | None:
        """Peak bytes of device memory held so far; None for a backend without a device."""
        return None

    def details(self) -> dict[str, Any]:
        """What else belongs into a report, JSON-ready: `build_seconds` and so on."""
        return {}

    def layers(self) -> list[str]:
        """Names of the values inside the network, in the order in which they are computed, as
        `dvmsr.export.onnx.graph` names them. The last is `output`.

        Raises:
            UsageError: if this backend does not show them.
            MissingComponentError: if that needs a package that is not installed.
        """
        raise UsageError(_NO_LAYERS)

    def layer_values(
        self, image: NDArray[np.float32], names: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """What the named layers compute for an image (B, 3, H, W): tokens (B, L, C) between the
        norms, pixels (B, H, W, C) around the convolutions.

        Raises:
            UsageError: as `layers`.
        """
        raise UsageError(_NO_LAYERS)


def pixels_of(planes: NDArray[Any], enlarged: int = 1) -> NDArray[Any]:
    """(B, C, H, W) -> (B, H, W, C), copied. Where a pixel shuffle enlarges it next, channels in the
    order of that (C', f, f) come as (f, f, C'): enlarged pixel by enlarged pixel."""
    batch, channels, height, width = planes.shape
    blocks = planes.reshape(batch, channels // enlarged**2, enlarged**2, height, width)
    return blocks.transpose(0, 3, 4, 2, 1).copy().reshape(batch, height, width, channels)


class Network(Enlarger):
    """A loaded network of DVMSR.

    A backend defines the call, `config` and `precision`, and of the rest what it does otherwise.
    """

    config: DVMSRConfig

    @property
    def scale(self) -> int:
        return self.config.scale


class PixelNetwork(Network):
    """A network that takes pictures as they are and converts them where it computes."""

    @abstractmethod
    def enlarge(self, image: NDArray[Any]) -> NDArray[Any]:
        """(H, W, 3) of type uint8, uint16 or float32 in [0, 1] -> (s*H, s*W, 3) of that type.

        Raises:
            DvmsrError: if a value is not finite, or as the call.
        """

    @abstractmethod
    def check_size(self, height: int, width: int, name: str) -> None:
        """Whether an image of that size, called `name` in the message, is taken.

        Raises:
            IncompatibleModelError: if not.
        """
