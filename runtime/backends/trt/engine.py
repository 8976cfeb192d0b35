"""A network in a TensorRT engine, on the GPU. Needs neither torch nor onnx.

Pictures travel as they are, in page-locked memory; conversion to the engine's type and layout and
back, and the network, run on the GPU. All buffers are kept between calls. From the second call with
a shape on, everything from the copy of the input to that of the output is one CUDA graph.
"""

import threading
import warnings
from collections import OrderedDict
from ctypes import byref
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.kernels import cuda
from dvmsr.runtime.backends.base import PixelNetwork
from dvmsr.runtime.backends.trt.cuda_memory import DeviceMemory, Event, Graph, HostMemory, Stream
from dvmsr.runtime.backends.trt.engine_file import EngineInfo, check_host, read_engine
from dvmsr.runtime.backends.trt.half import narrowed, widened
from dvmsr.runtime.backends.trt.library import (
    Log,
    import_tensorrt,
    load_plugin,
    release_plugin,
)
from dvmsr.runtime.backends.trt.rtx import KernelsAtRunTime

_ACTIVATIONS = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
"""Names of `tensorrt.DataType` and of `cuda.DTYPES`."""
_KEPT_SHAPES = 8
"""How many shapes keep their execution context and graph."""


@dataclass
class _Prepared:
    """An execution context for one shape, with the type of pixels around it, if any."""

    context: Any
    shape: tuple[int, ...]
    pixels: str | None
    calls: int = 0
    graph: Graph | None = None


class EngineNetwork(PixelNetwork):
    """(B, 3, H, W) FP32 RGB in [0, 1] -> (B, 3, s*H, s*W) FP32, within the engine's profile.

    May be called by several threads, which take turns.

    Args:
        trust: whether code for the processor that the plan carries may run, with all rights of the
            user. What the description beside the plan says does not decide that.

    Raises:
        UsageError: if the plan carries such code and is not trusted.
        DvmsrError: if the engine cannot be read, or not enough GPU memory is free.
        MissingComponentError: if there is no GPU, TensorRT, plugin or CUDA library.
        IncompatibleModelError: if it is of another TensorRT, GPU or plugin, or damaged.
    """

    clock = "CUDA events"

    def __init__(self, path: Path, trust: bool = False) -> None:
        self.path = path
        self.info: EngineInfo
        self.info, plan = read_engine(path)
        self._host_code = trust and self.info.host_code is not None
        if self.info.host_code and not trust:
            raise UsageError(
                f"{path} carries {self.info.host_code}, code that would run on the processor with "
                "all your rights; if you trust whoever made the file, say so with --trust-engine "
                "(trust_engine=True in Python)"
            )
        self.config, self.precision = self.info.config, self.info.precision
        self.usual_shape = self.info.profile.opt
        try:
            self._trt: ModuleType = import_tensorrt(self.info.target)
            self._library = cuda.load()
            device = self._library.device()
        except MissingComponentError as error:
            capabilities = " or ".join(self.info.compute_capabilities)
            wanted = f"{self.info.gpu or 'a GPU'} (compute capability {capabilities})"
            raise MissingComponentError(f"{path} was built for {wanted}, and {error}") from None
        check_host(
            path, self.info, self.info.target, self._trt.__version__, device.compute_capability
        )
        self._free_at_first = device.free_bytes
        self._peak = 0
        self._lock = threading.Lock()
        self._log = Log.of(self._trt)
        self._engine = self._deserialise(plan)
        self._kernels: KernelsAtRunTime | None = None
        if self.info.target == "rtx":
            digest = self.info.plan_sha256
            self._kernels = KernelsAtRunTime(self._trt, self._engine, path, digest)
        self._dtype = self._checked_type()
        self._stream = Stream(self._library)
        # Of the largest shape in the profile. All contexts share it, since they take turns.
        self._scratch = DeviceMemory(self._library, self._engine.device_memory_size_v2)
        self._device: dict[str, DeviceMemory] = {}
        self._host: dict[str, HostMemory] = {}
        self._prepared: OrderedDict[tuple[object, ...], _Prepared] = OrderedDict()
        self._not_finite = DeviceMemory(self._library, 4)
        self._not_finite_host = HostMemory(self._library, 4)
        self._note_memory()

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
            words = self._host["output"].array(self._word, shape)
            size = words.nbytes
            self._stream.copy(self._host["output"].pointer, self._device["output"].pointer, size)
            self._stream.synchronize()
            return widened(words, self._dtype)

    def seconds(self, image: NDArray[np.float32]) -> float:
        """Seconds on the GPU from the input in device memory to the output there."""
        with self._lock:
            first, last = Event(self._library), Event(self._library)
            self._compute_planes(image, (first, last))
            self._stream.synchronize()
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
        with self._lock:
            item = image.dtype.itemsize
            self._reserve(1, height, width, item)
            prepared = self._prepare((1, 3, height, width), image.dtype.name)
            self._host["input"].array(image.dtype, image.shape)[...] = image
            self._run(prepared)
            self._stream.synchronize()
            if self._not_finite_host.array(np.int32, (1,))[0]:
                raise DvmsrError(
                    f"{self.path} computes values that are not finite; build it again in FP32"
                )
            return self._host["output"].array(image.dtype, larger).copy()

    def device_memory(self) -> int:
        """Peak bytes of GPU memory taken since the engine was loaded, by whatever process."""
        return self._peak

    def details(self) -> dict[str, Any]:
        return {"tensorrt": self.info.tensorrt, "build_seconds": self.info.build_seconds}

    @property
    def _word(self) -> type:
        """A numpy type as wide as the engine's."""
        return np.float32 if self._dtype == "float32" else np.uint16

    def _deserialise(self, plan: bytes) -> Any:
        trt, info = self._trt, self.info
        runtime = trt.Runtime(self._log)
        runtime.engine_host_code_allowed = self._host_code
        alone = True
        if info.plugin is not None and not info.plugin.embedded:
            load_plugin(trt, self.path, info, user=self)
        elif info.plugin is not None:
            # TensorRT refuses a plan whose plugins are registered already.
            alone = release_plugin(trt, info)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None and not alone:
            raise DvmsrError(
                f"{self.path} carries the plugin that something in this process has registered, "
                f"which TensorRT refuses ({self._log.last()}); use it in a process of its own, or "
                "build it again without --embed-plugin"
            )
        if engine is None:
            raise IncompatibleModelError(
                f"{self.path} cannot be loaded by {trt.__name__} {trt.__version__} "
                f"({self._log.last()}); build it again: {info.rebuild}"
            )
        self._runtime = runtime  # must outlive the engine
        return engine

    def _checked_type(self) -> str:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        types = {engine.get_tensor_dtype(name).name for name in names}
        if sorted(names) != ["input", "output"] or len(types) != 1 or not types < {*_ACTIVATIONS}:
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
        self._host["input"].array(words.dtype, words.shape)[...] = words
        self._stream.copy(self._device["input"].pointer, self._host["input"].pointer, words.nbytes)
        if events:
            events[0].record(self._stream)
        self._run(prepared)
        if events:
            events[1].record(self._stream)

    def _reserve(self, batch: int, height: int, width: int, pixel_bytes: int) -> None:
        """Buffers for that size, and no less than before."""
        word = np.dtype(self._word).itemsize
        values = 3 * batch * height * width
        larger = values * self.config.scale**2
        self._grow(self._device, DeviceMemory, "input", values * word)
        self._grow(self._device, DeviceMemory, "output", larger * word)
        self._grow(self._device, DeviceMemory, "input pixels", values * pixel_bytes)
        self._grow(self._device, DeviceMemory, "output pixels", larger * pixel_bytes)
        self._grow(self._host, HostMemory, "input", values * max(word, pixel_bytes))
        self._grow(self._host, HostMemory, "output", larger * max(word, pixel_bytes))

    def _grow(self, buffers: dict[str, Any], kind: Any, name: str, size: int) -> None:
        if name in buffers and buffers[name].size >= size:
            return
        self._prepared.clear()  # graphs and contexts hold the old addresses
        if name in buffers:
            buffers.pop(name).free()
        buffers[name] = kind(self._library, size)
        self._note_memory()

    def _prepare(self, shape: tuple[int, ...], pixels: str | None) -> _Prepared:
        """What runs for planes of this shape, from and to pixels of a type or without them."""
        key = (shape, pixels)
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key]
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        how = self._kernels.config if self._kernels else strategy
        context = self._engine.create_execution_context(how)
        if context is None:
            raise self._failure("create an execution context")
        context.set_device_memory(self._scratch.pointer, self._scratch.size)
        if not context.set_input_shape("input", shape):
            raise self._failure(f"take an input of shape {shape}")
        if tuple(context.get_tensor_shape("output")) != self._output_shape(shape):
            raise IncompatibleModelError(
                f"{self.path} makes {tuple(context.get_tensor_shape('output'))} of {shape}, which "
                f"is not the scale of {self.config.scale} that it is described with; "
                f"build it again: {self.info.rebuild}"
            )
        for name in ("input", "output"):
            context.set_tensor_address(name, self._device[name].pointer)

        while len(self._prepared) >= _KEPT_SHAPES:
            self._prepared.popitem(last=False)
        self._prepared[key] = _Prepared(context, shape, pixels)
        return self._prepared[key]

    def _work(self, prepared: _Prepared) -> None:
        """Puts the network on the stream, or all between a picture in host memory and one there."""
        if prepared.pixels is None:
            self._network(prepared)
            return
        (batch, _, height, width), pixels = prepared.shape, prepared.pixels
        scale = self.config.scale
        kind, dtype = cuda.PIXELS[pixels], cuda.DTYPES[self._dtype]
        size = 3 * batch * height * width * np.dtype(pixels).itemsize
        device, host, stream = self._device, self._host, self._stream
        small = cuda.Picture(
            kind, dtype, batch, height, width, device["input pixels"].pointer,
            device["input"].pointer,
        )  # fmt: skip
        large = cuda.Picture(
            kind, dtype, batch, height * scale, width * scale, device["output pixels"].pointer,
            device["output"].pointer,
        )  # fmt: skip
        stream.copy(device["input pixels"].pointer, host["input"].pointer, size)
        self._library.call("planes_from_pixels", byref(small), stream.pointer)
        self._network(prepared)
        self._library.call(
            "pixels_from_planes", byref(large), self._not_finite.pointer, stream.pointer
        )
        stream.copy(host["output"].pointer, device["output pixels"].pointer, size * scale**2)
        stream.copy(self._not_finite_host.pointer, self._not_finite.pointer, 4)

    def _network(self, prepared: _Prepared) -> None:
        if not prepared.context.execute_async_v3(self._stream.pointer):
            raise self._failure("run the network")

    def _run(self, prepared: _Prepared) -> None:
        """Puts the work on the stream. TensorRT wants one call with a shape before a recording."""
        prepared.calls += 1
        if prepared.calls == 2:
            try:
                self._check_recordable(prepared)
                prepared.graph = self._stream.record(lambda: self._work(prepared))
            except DvmsrError as error:
                warnings.warn(
                    f"{self.path} runs without a CUDA graph, which costs some time ({error})",
                    stacklevel=2,
                )
        if prepared.graph:
            prepared.graph.launch()
        else:
            self._work(prepared)
        if prepared.calls <= 2:
            self._note_memory()
        if prepared.calls == 1 and self._kernels:
            self._kernels.keep()

    def _check_recordable(self, prepared: _Prepared) -> None:
        """TensorRT for RTX tells beforehand."""
        if self._kernels and not prepared.context.is_stream_capturable(self._stream.pointer):
            raise DvmsrError("TensorRT for RTX cannot record this network")

    def _note_memory(self) -> None:
        taken = self._free_at_first - self._library.device().free_bytes
        self._peak = max(self._peak, taken)

    def _failure(self, what: str) -> DvmsrError:
        return DvmsrError(f"TensorRT could not {what} of {self.path} ({self._log.last()})")
