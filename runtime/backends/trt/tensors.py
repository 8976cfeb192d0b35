"""Any network in a TensorRT engine, on the GPU: arrays in, arrays out, by name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.examples import read_axes, read_ranges
from dvmsr.runtime.backends.tensors import Arrays, Example, Port, TensorNetwork
from dvmsr.runtime.backends.trt.cuda_memory import Event
from dvmsr.runtime.backends.trt.engine_file import read_engine
from dvmsr.runtime.backends.trt.engine_info import EngineInfo
from dvmsr.runtime.backends.trt.half import narrowed, widened
from dvmsr.runtime.backends.trt.loaded import LoadedEngine, Prepared
from dvmsr.runtime.backends.trt.profiles import InputProfile, in_words

_TYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32",
    "INT8": "int8", "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""Names of `tensorrt.DataType`, and NumPy's."""
_Shapes = dict[str, tuple[int, ...]]


class EngineTensors(TensorNetwork):
    """A network in an engine, such as `dvmsr-export trt` builds of an ONNX file of any network.

    Takes inputs within the engine's profiles. An input that nothing is computed of is taken and
    left alone. Outputs in bfloat16 come as FP32. May be called by several threads, which take
    turns.

    Args:
        trust: whether code for the processor that the plan carries may run, with all rights of the
            user.

    Raises:
        DvmsrError: if the engine cannot be read.
        IncompatibleModelError: as `LoadedEngine`, or if it has tensors of types that NumPy lacks;
            otherwise as that, too.
    """

    backend = "tensorrt"
    clock = "CUDA events"

    def __init__(self, path: Path, trust: bool = False) -> None:
        self.path, self.model = path, str(path)
        self.info: EngineInfo
        self.info, plan = read_engine(path)
        self.precision = self.info.precision
        self._lock = threading.Lock()
        self._loaded = LoadedEngine(path, self.info, plan, trust)
        tensors = self._loaded.tensors()
        self._dtypes = {name: self._dtype(name, kind) for name, (_, kind) in tensors.items()}
        self._computed = [name for name, (is_input, _) in tensors.items() if is_input]
        if not self.info.profiles.keys() >= {*self._computed}:
            raise IncompatibleModelError(
                f"{path} has other inputs than it is described with; "
                f"build it again: {self.info.rebuild}"
            )
        ranges = read_ranges(path, self.info.model)
        labels = read_axes(path, self.info.model)
        self.inputs = {
            name: Port(_declared(name, profile, labels.get(name, {})), self._dtypes.get(name))
            for name, profile in self.info.profiles.items()
        }
        self.outputs = {
            name: Port(self._output_shape(name), self._dtypes[name])
            for name, (is_input, _) in tensors.items()
            if not is_input
        }
        self.examples = {
            name: Example(profile.opt, *ranges.get(name, ()))
            for name, profile in self.info.profiles.items()
        }

    def seconds(self, arrays: Mapping[str, Any]) -> float:
        """Seconds on the GPU from the inputs in device memory to the outputs there."""
        feeds = self.feeds(arrays)
        with self._lock:
            first, last = Event(self._loaded.library), Event(self._loaded.library)
            self._compute(feeds, (first, last))
            self._loaded.stream.synchronize()
            return first.seconds_until(last)

    def device_memory(self) -> int:
        """Peak bytes of GPU memory taken since the engine was loaded, by whatever process."""
        return self._loaded.peak

    def details(self) -> dict[str, Any]:
        return {"tensorrt": self.info.tensorrt, "build_seconds": self.info.build_seconds}

    def feeds(self, arrays: Mapping[str, Any]) -> Arrays:
        """The arrays in the types that the network takes.

        Raises:
            UsageError: if one is missing, unknown, or of another shape or kind.
            IncompatibleModelError: if one is outside the engine's profiles.
        """
        feeds = super().feeds(arrays)
        for name, profile in self.info.profiles.items():
            if not profile.contains(feeds[name].shape):
                raise self._outside(name, feeds[name].shape)
        return feeds

    def _run(self, feeds: Arrays) -> Arrays:
        with self._lock:
            prepared = self._compute(feeds)
            loaded, copied = self._loaded, {}
            for name, shape in self._output_shapes(prepared.context).items():
                device, host = loaded.device[name], loaded.host[name]
                copied[name] = host.array(_word(self._dtypes[name]), shape)
                loaded.stream.copy(host.pointer, device.pointer, copied[name].nbytes)
            loaded.stream.synchronize()
            return {name: _unpacked(words, self._dtypes[name]) for name, words in copied.items()}

    def _compute(self, feeds: Arrays, events: tuple[Event, Event] | None = None) -> Prepared:
        """Leaves the outputs on the device; to be called under the lock."""
        prepared = self._prepare({name: feeds[name].shape for name in self._computed})
        loaded = self._loaded
        for name in self._computed:
            words = _packed(feeds[name], self._dtypes[name])
            device, host = loaded.device[name], loaded.host[name]
            host.array(words.dtype, words.shape)[...] = words
            loaded.stream.copy(device.pointer, host.pointer, words.nbytes)
        loaded.run(prepared, lambda: loaded.execute(prepared), events)
        return prepared

    def _prepare(self, shapes: _Shapes) -> Prepared:
        """What runs for inputs of these shapes."""
        key = tuple(shapes.items())
        if known := self._loaded.known(key):
            return known
        context = self._loaded.context(shapes)
        sizes = {
            name: int(np.prod(shape)) * np.dtype(_word(self._dtypes[name])).itemsize
            for name, shape in {**shapes, **self._output_shapes(context)}.items()
        }
        self._loaded.reserve(sizes, sizes)
        return self._loaded.keep(key, context)

    def _output_shapes(self, context: Any) -> _Shapes:
        """Once the inputs have theirs."""
        shapes = {name: tuple(context.get_tensor_shape(name)) for name in self.outputs}
        for name, shape in shapes.items():
            if min(shape, default=1) < 0:
                raise IncompatibleModelError(
                    f"the size of the output {name} of {self.path} depends on values, which is not "
                    "supported here; export the network without that output"
                )
        return shapes

    def _dtype(self, name: str, kind: str) -> str:
        if kind not in _TYPES:
            raise IncompatibleModelError(
                f"{self.path} has {kind} in {name}, which NumPy lacks; export its model with an "
                "input and output of another type"
            )
        return _TYPES[kind]

    def _output_shape(self, name: str) -> tuple[int | str, ...]:
        sizes = self._loaded.engine.get_tensor_shape(name)
        return tuple(size if size >= 0 else "?" for size in sizes)

    def _outside(self, name: str, shape: tuple[int, ...]) -> IncompatibleModelError:
        profile = self.info.profiles[name]
        low, high = (
            in_words([choose(pair) for pair in zip(bound, shape, strict=True)])
            for choose, bound in ((min, profile.min), (max, profile.max))
        )
        return IncompatibleModelError(
            f"{name} is {in_words(shape)}, and {self.path} takes {in_words(profile.min)} to "
            f"{in_words(profile.max)}; build one that takes it: `dvmsr-export trt` with "
            f"--min {name}:{low} --max {name}:{high}"
        )


def _declared(name: str, profile: InputProfile, labels: Mapping[str, str]) -> tuple[int | str, ...]:
    """The shape that an input is declared with; a size that may change has its name."""
    bounds = zip(profile.min, profile.max, strict=True)
    return tuple(
        low if low == high else labels.get(str(axis), f"{name}_{axis}")
        for axis, (low, high) in enumerate(bounds)
    )


def _word(dtype: str) -> Any:
    """A NumPy type as wide as that."""
    return np.uint16 if dtype == "bfloat16" else np.dtype(dtype)


def _packed(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    return narrowed(array, dtype) if dtype == "bfloat16" else array


def _unpacked(words: NDArray[Any], dtype: str) -> NDArray[Any]:
    """As an array of its own."""
    return widened(words, dtype) if dtype == "bfloat16" else words.copy()
