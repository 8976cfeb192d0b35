"""Stands for TensorRT's Python module, on the emulated device: what dvmsr calls, no more.

A plan is the path of an ONNX file, maybe after `CARRIED`, which ONNX Runtime computes on the CPU,
in the emulated device's memory and in the order of its streams. It insists on what TensorRT insists
on: shapes in the profile, addresses, scratch memory, a call with a shape before one is recorded,
and no plugin registered that a plan carries.
`test_engine.py` holds the names to those of TensorRT for RTX.
"""

from __future__ import annotations

import ctypes
import weakref
from enum import Enum, IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.trt.profiles import InputProfile

NAME = "tensorrt"
RTX_NAME = "tensorrt_rtx"
VERSION = "10.14.1.48"
SCRATCH = 4096
CARRIED = "plugin:"
"""What a plan begins with that carries a plugin library."""


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8


TYPES = {
    "tensor(float)": (DataType.FLOAT, np.float32), "tensor(float16)": (DataType.HALF, np.float16),
    "tensor(int64)": (DataType.INT64, np.int64), "tensor(int32)": (DataType.INT32, np.int32),
    "tensor(bool)": (DataType.BOOL, np.bool_),
}  # fmt: skip
"""ONNX Runtime's, TensorRT's and NumPy's."""


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC = 0
    USER_MANAGED = 2


class DynamicShapesKernelSpecializationStrategy(Enum):
    LAZY = 0
    EAGER = 1


class IRuntimeCache:
    """`kernels` names the shapes that there are some for, after a mark without which it refuses."""

    def __init__(self) -> None:
        self.kernels = b"kernels:"

    def serialize(self) -> bytearray:
        return bytearray(self.kernels)

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"kernels:"):
            return False
        self.kernels = blob
        return True


class IRuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def __init__(self) -> None:
        self._strategy = ExecutionContextAllocationStrategy.STATIC
        self._cache: IRuntimeCache | None = None

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self._strategy = strategy

    def get_execution_context_allocation_strategy(self) -> ExecutionContextAllocationStrategy:
        return self._strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> IRuntimeCache | None:
        return self._cache


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class PluginRegistry:
    """Loads nothing; `loaded` has the libraries whose plugins are registered. As of TensorRT's, a
    library of plugins that are registered already is refused."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def get_creator(self, type: str, version: str, plugin_namespace: str) -> object | None:
        return object() if self.loaded else None

    def load_library(self, plugin_path: str) -> object | None:
        if "broken" in plugin_path or self.loaded:
            return None
        self.loaded.append(plugin_path)
        return plugin_path

    def deregister_library(self, handle: str) -> None:
        self.loaded.remove(handle)


def module(device: Path, profiles: dict[str, InputProfile], name: str = NAME) -> ModuleType:
    """The module; its engines take inputs within these profiles.

    With the name of TensorRT for RTX it wants a runtime configuration, and records no kernels that
    stand in for those of a shape.

    Args:
        device: the library with the emulated device.
    """
    library = ctypes.CDLL(str(device))
    action_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    library.host_cuda_recording.argtypes = [ctypes.c_void_p]
    library.host_cuda_put.argtypes = [ctypes.c_void_p, action_type, ctypes.c_void_p]

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine, config: IRuntimeConfig | None) -> None:
            self.engine = engine
            self.config = config
            self.addresses: dict[str, int] = {}
            self.scratch = 0
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.ran = False
            self.kept: list[Any] = []  # what recorded graphs call

        def set_device_memory(self, memory: int, size: int) -> None:
            assert memory
            assert memory % 256 == 0
            self.scratch = size

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            if not profiles[name].contains(shape):
                self.engine.log(ILogger.ERROR, f"shape {shape} is outside the profile")
                return False
            self.shapes[name], self.ran = tuple(shape), False
            if self.shapes.keys() == self.engine.inputs.keys():
                self.shapes |= self.engine._shapes_of_outputs(self.shapes)
            return True

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return self.shapes[name]

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self.addresses[name] = memory
            return True

        def is_stream_capturable(self, stream: int) -> bool:
            eager = DynamicShapesKernelSpecializationStrategy.EAGER
            config = self.config
            return not config or config.dynamic_shapes_kernel_specialization_strategy is eager

        def execute_async_v3(self, stream_handle: int) -> bool:
            tensors = self.engine.inputs | self.engine.outputs
            assert self.shapes.keys() == self.addresses.keys() == tensors.keys()
            assert self.scratch >= self.engine.device_memory_size_v2
            recording = library.host_cuda_recording(stream_handle)
            if recording and not self.ran:
                self.engine.log(ILogger.ERROR, "the context is not ready for a recording")
                return False
            if recording and not self.is_stream_capturable(stream_handle):
                self.engine.log(ILogger.ERROR, "kernels that stand in would be recorded")
                return False
            self.ran = True
            cache = self.config.get_runtime_cache() if self.config else None
            given = {name: self.shapes[name] for name in self.engine.inputs}
            shape = repr(given).encode()
            if cache and shape not in cache.kernels:
                assert not recording
                cache.kernels += shape
                self.engine.compiled.append(tuple(given.values()))
            sources = {name: self._array(name) for name in self.engine.inputs}
            targets = {name: self._array(name) for name in self.engine.outputs}
            computed = self.engine._computed

            def compute(_: int) -> None:
                results = computed({name: array.copy() for name, array in sources.items()})
                for target, result in zip(targets.values(), results, strict=True):
                    target[...] = result

            action = action_type(compute)
            self.kept.append(action)
            return library.host_cuda_put(stream_handle, action, None) == 0

        def _array(self, name: str) -> np.ndarray:
            _, dtype = (self.engine.inputs | self.engine.outputs)[name]
            shape = self.get_tensor_shape(name)
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            data = (ctypes.c_ubyte * size).from_address(self.addresses[name])
            return np.frombuffer(data, dtype).reshape(shape)

    class ICudaEngine:
        device_memory_size_v2 = SCRATCH

        def __init__(self, path: str, log: Any) -> None:
            self.log = log.log
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            self.inputs = {value.name: TYPES[value.type] for value in self.session.get_inputs()}
            self.outputs = {value.name: TYPES[value.type] for value in self.session.get_outputs()}
            self.contexts = 0
            self.compiled: list[tuple[tuple[int, ...], ...]] = []  # of TensorRT for RTX, as it runs

        @property
        def num_io_tensors(self) -> int:
            return len(self.inputs) + len(self.outputs)

        def _shapes_of_outputs(
            self, shapes: dict[str, tuple[int, ...]]
        ) -> dict[str, tuple[int, ...]]:
            feeds = {name: np.zeros(shapes[name], kind) for name, (_, kind) in self.inputs.items()}
            return dict(zip(self.outputs, (r.shape for r in self._computed(feeds)), strict=True))

        def _computed(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            results: list[np.ndarray] = self.session.run(list(self.outputs), feeds)
            return results

        def get_tensor_name(self, index: int) -> str:
            return [*self.inputs, *self.outputs][index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return (self.inputs | self.outputs)[name][0]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            values = [*self.session.get_inputs(), *self.session.get_outputs()]
            (shape,) = [value.shape for value in values if value.name == name]
            return tuple(size if isinstance(size, int) else -1 for size in shape)

        def create_runtime_config(self) -> IRuntimeConfig:
            return IRuntimeConfig()

        def create_execution_context(
            self, how: ExecutionContextAllocationStrategy | IRuntimeConfig
        ) -> IExecutionContext:
            config = how if isinstance(how, IRuntimeConfig) else None
            assert (config is not None) == (name == RTX_NAME)
            strategy = config.get_execution_context_allocation_strategy() if config else how
            assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
            self.contexts += 1
            return IExecutionContext(self, config)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            if not serialized_engine.endswith(b".onnx"):
                self.logger.log(ILogger.ERROR, "the magic tag does not match")
                return None
            path = serialized_engine.decode()
            if path.startswith(CARRIED):
                if not self.engine_host_code_allowed or registry.load_library(CARRIED) is None:
                    self.logger.log(ILogger.ERROR, "a plugin is registered already")
                    return None
                weakref.finalize(self, registry.deregister_library, CARRIED)
            return ICudaEngine(path.removeprefix(CARRIED), self.logger)

    registry = PluginRegistry()
    result = ModuleType(name)
    result.__spec__ = ModuleSpec(name, None)
    result.__dict__.update(
        vars(
            SimpleNamespace(
                __version__=VERSION,
                DataType=DataType,
                DynamicShapesKernelSpecializationStrategy=(
                    DynamicShapesKernelSpecializationStrategy
                ),
                ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
                ICudaEngine=ICudaEngine,
                IExecutionContext=IExecutionContext,
                ILogger=ILogger,
                IRuntimeCache=IRuntimeCache,
                IRuntimeConfig=IRuntimeConfig,
                Runtime=Runtime,
                TensorIOMode=TensorIOMode,
                get_plugin_registry=lambda: registry,
            )
        )
    )
    return result
