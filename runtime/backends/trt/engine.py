"""A network in a TensorRT engine, on the GPU. Needs neither torch nor onnx.

Pictures travel as they are, in page-locked memory; conversion to the engine's type and layout and
back, and the network, run on the GPU. All buffers are kept between calls. From the second call with
a shape on, everything from the copy of the input to that of the output is one CUDA graph.
"""

import threading
from ctypes import byref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError, IncompatibleModelError
from dvmsr.kernels import cuda
from dvmsr.runtime.backends.base import PixelNetwork
from dvmsr.runtime.backends.trt.cuda_memory import DeviceMemory, Event, HostMemory
from dvmsr.runtime.backends.trt.engine_file import read_engine
from dvmsr.runtime.backends.trt.engine_info import NETWORK, EngineInfo
from dvmsr.runtime.backends.trt.half import narrowed, widened
from dvmsr.runtime.backends.trt.loaded import LoadedEngine, Prepared

_ACTIVATIONS = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
"""Names of `tensorrt.DataType` and of `cuda.DTYPES`."""


class EngineNetwork(PixelNetwork):
    """(B, 3, H, W) FP32 RGB in [0, 1] -> (B, 3, s*H, s*W) FP32, within the engine's profile.

    May be called by several threads, which take turns.

    Args:
        trust: whether code for the processor that the plan carries may run, with all rights of the
            user.

    Raises:
        DvmsrError: if the engine cannot be read.
        IncompatibleModelError: if it holds another network than DVMSR; otherwise as `LoadedEngine`.
    """

    clock = "CUDA events"

    def __init__(self, path: Path, trust: bool = False) -> None:
        self.path = path
        self.info: EngineInfo
        self.info, plan = read_engine(path)
        if not self.info.is_dvmsr:
            raise IncompatibleModelError(
                f"{path} holds another network than DVMSR, {self.info.model[NETWORK]}; run it with "
                "dvmsr.runtime.open_model, or compare it with `dvmsr parity`"
            )
        self.config, self.precision = self.info.config, self.info.precision
        self.usual_shape = self.info.profile.opt
        self._lock = threading.Lock()
        self._loaded = LoadedEngine(path, self.info, plan, trust)
        self._dtype = self._checked_type()
        library = self._loaded.library
        self._not_finite, self._not_finite_host = DeviceMemory(library, 4), HostMemory(library, 4)

    def check_size(self, height: int, width: int, name: str, batch: int = 1) -> None:
        """Whether images of that size lie inside the profile; `name` is for the message.

        Raises:
            IncompatibleModelError: if not.
        """
        profile = self.info.profile
        if profile.contains((batch, height, width)):
            return
        (b0, h0, w0), (opt, _, _), (b1, h1, w1) = profile.min, profile.opt, profile.max
        low = f"{min(h0, height)}x{min(w0, width)}"
        high = f"{max(h1, height)}x{max(w1, width)}"
        batches = f"{min(b0, batch)},{opt},{max(b1, batch)}"
        raise IncompatibleModelError(
            f"{name} has {width}x{height} pixels (batch {batch}), and {self.path} takes {w0}x{h0} "
            f"to {w1}x{h1} (batch {b0} to {b1}); build one that takes it: `dvmsr-export trt` with "
            f"--min {low} --max {high} --batch {batches}"
        )

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on planes, without clipping or rounding to pixels.

        Raises:
            IncompatibleModelError: if the shape is outside the engine's profile.
            DvmsrError: if TensorRT or CUDA fails.
        """
        with self._lock:
            self._compute_planes(image)
            shape = self._output_shape(image.shape)
            device, host, stream = self._loaded.device, self._loaded.host, self._loaded.stream
            words = host["output"].array(self._word, shape)
            stream.copy(host["output"].pointer, device["output"].pointer, words.nbytes)
            stream.synchronize()
            return widened(words, self._dtype)

    def seconds(self, image: NDArray[np.float32]) -> float:
        """Seconds on the GPU from the input in device memory to the output there."""
        with self._lock:
            first, last = Event(self._loaded.library), Event(self._loaded.library)
            self._compute_planes(image, (first, last))
            self._loaded.stream.synchronize()
            return first.seconds_until(last)

    def enlarge(self, image: NDArray[Any]) -> NDArray[Any]:
        """(H, W, 3) of type uint8, uint16 or float32 in [0, 1] -> (s*H, s*W, 3) of that type.

        Raises:
            IncompatibleModelError: if the shape is outside the engine's profile.
            DvmsrError: if a value is not finite, or TensorRT or CUDA fails.
        """
        height, width, _ = image.shape
        self.check_size(height, width, "the image")
        larger = (height * self.config.scale, width * self.config.scale, 3)
        pixels, shape = image.dtype.name, (1, 3, height, width)
        with self._lock:
            self._reserve(1, height, width, image.dtype.itemsize)
            prepared = self._prepare(shape, pixels)
            host = self._loaded.host
            host["input"].array(image.dtype, image.shape)[...] = image
            self._loaded.run(prepared, lambda: self._work(prepared, shape, pixels))
            self._loaded.stream.synchronize()
            if self._not_finite_host.array(np.int32, (1,))[0]:
                raise DvmsrError(
                    f"{self.path} computes values that are not finite; build it again in FP32"
                )
            return host["output"].array(image.dtype, larger).copy()

    def device_memory(self) -> int:
        """Peak bytes of GPU memory taken since the engine was loaded, by whatever process."""
        return self._loaded.peak

    def details(self) -> dict[str, Any]:
        return {"tensorrt": self.info.tensorrt, "build_seconds": self.info.build_seconds}

    @property
    def _word(self) -> type:
        """A numpy type as wide as the engine's."""
        return np.float32 if self._dtype == "float32" else np.uint16

    def _checked_type(self) -> str:
        tensors = self._loaded.tensors()
        types = {kind for _, kind in tensors.values()}
        if sorted(tensors) != ["input", "output"] or len(types) != 1 or not types < {*_ACTIVATIONS}:
            raise IncompatibleModelError(
                f"{self.path} has other inputs and outputs than dvmsr's; "
                f"build it again: {self.info.rebuild}"
            )
        return _ACTIVATIONS[types.pop()]

    def _output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        batch, channels, height, width = shape
        return batch, channels, height * self.config.scale, width * self.config.scale

    def _compute_planes(
        self, image: NDArray[np.float32], events: tuple[Event, Event] | None = None
    ) -> None:
        """Leaves the output on the device; to be called under the lock."""
        batch, _, height, width = image.shape
        self.check_size(height, width, "the image", batch)
        self._reserve(batch, height, width, 4)
        prepared = self._prepare(image.shape, None)
        words = narrowed(image, self._dtype)
        device, host = self._loaded.device["input"], self._loaded.host["input"]
        host.array(words.dtype, words.shape)[...] = words
        self._loaded.stream.copy(device.pointer, host.pointer, words.nbytes)
        self._loaded.run(prepared, lambda: self._loaded.execute(prepared), events)

    def _reserve(self, batch: int, height: int, width: int, pixel_bytes: int) -> None:
        """Buffers for that size, and no less than before."""
        word = np.dtype(self._word).itemsize
        values = 3 * batch * height * width
        larger = values * self.config.scale**2
        self._loaded.reserve(
            device={
                "input": values * word,
                "output": larger * word,
                "input pixels": values * pixel_bytes,
                "output pixels": larger * pixel_bytes,
            },
            host={
                "input": values * max(word, pixel_bytes),
                "output": larger * max(word, pixel_bytes),
            },
        )

    def _prepare(self, shape: tuple[int, ...], pixels: str | None) -> Prepared:
        """What runs for planes of this shape, from and to pixels of a type or without them."""
        key = (shape, pixels)
        if known := self._loaded.known(key):
            return known
        context = self._loaded.context({"input": shape})
        if tuple(context.get_tensor_shape("output")) != self._output_shape(shape):
            raise IncompatibleModelError(
                f"{self.path} makes {tuple(context.get_tensor_shape('output'))} of {shape}, which "
                f"is not the scale of {self.config.scale} that it is described with; "
                f"build it again: {self.info.rebuild}"
            )
        return self._loaded.keep(key, context)

    def _work(self, prepared: Prepared, shape: tuple[int, ...], pixels: str) -> None:
        """Puts all between a picture in host memory and one there on the stream."""
        batch, _, height, width = shape
        scale = self.config.scale
        kind, dtype = cuda.PIXELS[pixels], cuda.DTYPES[self._dtype]
        size = 3 * batch * height * width * np.dtype(pixels).itemsize
        loaded = self._loaded
        device, host, stream = loaded.device, loaded.host, loaded.stream
        small = cuda.Picture(
            kind, dtype, batch, height, width, device["input pixels"].pointer,
            device["input"].pointer,
        )  # fmt: skip
        large = cuda.Picture(
            kind, dtype, batch, height * scale, width * scale, device["output pixels"].pointer,
            device["output"].pointer,
        )  # fmt: skip
        stream.copy(device["input pixels"].pointer, host["input"].pointer, size)
        loaded.library.call("planes_from_pixels", byref(small), stream.pointer)
        loaded.execute(prepared)
        loaded.library.call(
            "pixels_from_planes", byref(large), self._not_finite.pointer, stream.pointer
        )
        stream.copy(host["output"].pointer, device["output pixels"].pointer, size * scale**2)
        stream.copy(self._not_finite_host.pointer, self._not_finite.pointer, 4)
