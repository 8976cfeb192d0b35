"""Stands for TensorRT's Python module, on the emulated device: what `EngineNetwork` calls, no more.

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

NAME = "tensorrt"
RTX_NAME = "tensorrt_rtx"
VERSION = "10.14.1.48"
SCRATCH = 4096
CARRIED = "plugin:"
"""What a plan begins with that carries a plugin library."""


class DataType(Enum):
    FLOAT = 0
    HALF = 1


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


def module(
    device: Path, low: tuple[int, ...], high: tuple[int, ...], name: str = NAME
) -> ModuleType:
    """The module; its engines take inputs (B, 3, H, W) from `low` to `high`.

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
            self.shape: tuple[int, ...] = ()
            self.ran = False
            self.kept: list[Any] = []  # what recorded graphs call

        def set_device_memory(self, memory: int, size: int) -> None:
            assert memory
            assert memory % 256 == 0
            self.scratch = size

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            if not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
                self.engine.log(ILogger.ERROR, f"shape {shape} is outside the profile")
                return False
            self.shape, self.ran = tuple(shape), False
            return True

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            b, c, h, w = self.shape
            scale = self.engine.scale if name == "output" else 1
            return b, c, h * scale, w * scale

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self.addresses[name] = memory
            return True

        def is_stream_capturable(self, stream: int) -> bool:
            eager = DynamicShapesKernelSpecializationStrategy.EAGER
            config = self.config
            return not config or config.dynamic_shapes_kernel_specialization_strategy is eager

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert self.shape
            assert self.addresses.keys() == {"input", "output"}
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
            shape = repr(self.shape).encode()
            if cache and shape not in cache.kernels:
                assert not recording
                cache.kernels += shape
                self.engine.compiled.append(self.shape)
            source = self._array("input")
            target = self._array("output")
            session = self.engine.session

            def compute(_: int) -> None:
                target[...] = session.run(["output"], {"input": source.copy()})[0]

            action = action_type(compute)
            self.kept.append(action)
            return library.host_cuda_put(stream_handle, action, None) == 0

        def _array(self, name: str) -> np.ndarray:
            dtype = self.engine.dtype
            shape = self.get_tensor_shape(name)
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            data = (ctypes.c_ubyte * size).from_address(self.addresses[name])
            return np.frombuffer(data, dtype).reshape(shape)

    class ICudaEngine:
        num_io_tensors = 2
        device_memory_size_v2 = SCRATCH

        def __init__(self, path: str, log: Any) -> None:
            self.log = log.log
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            half = self.session.get_inputs()[0].type == "tensor(float16)"
            self.dtype = np.float16 if half else np.float32
            self.scale = 2
            self.contexts = 0
            self.compiled: list[tuple[int, ...]] = []  # of TensorRT for RTX, as it runs

        def get_tensor_name(self, index: int) -> str:
            return ("input", "output")[index]

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType.HALF if self.dtype == np.float16 else DataType.FLOAT

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
                get_plugin_registry=lambda: registry,
            )
        )
    )
    return result
