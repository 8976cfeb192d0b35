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


def module(device: Path, low: tuple[int, ...], high: tuple[int, ...]) -> ModuleType:
    """The module; its engines take inputs (B, 3, H, W) from `low` to `high`.

    Args:
        device: the library with the emulated device.
    """
    library = ctypes.CDLL(str(device))
    action_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    library.host_cuda_recording.argtypes = [ctypes.c_void_p]
    library.host_cuda_put.argtypes = [ctypes.c_void_p, action_type, ctypes.c_void_p]

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine) -> None:
            self.engine = engine
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

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert self.shape
            assert self.addresses.keys() == {"input", "output"}
            assert self.scratch >= self.engine.device_memory_size_v2
            recording = library.host_cuda_recording(stream_handle)
            if recording and not self.ran:
                self.engine.log(ILogger.ERROR, "the context is not ready for a recording")
                return False
            self.ran = True
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

        def get_tensor_name(self, index: int) -> str:
            return ("input", "output")[index]

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType.HALF if self.dtype == np.float16 else DataType.FLOAT

        def create_execution_context(
            self, strategy: ExecutionContextAllocationStrategy
        ) -> IExecutionContext:
            assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
            self.contexts += 1
            return IExecutionContext(self)

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
    result = ModuleType(NAME)
    result.__spec__ = ModuleSpec(NAME, None)
    result.__dict__.update(
        vars(
            SimpleNamespace(
                __version__=VERSION,
                DataType=DataType,
                ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
                ICudaEngine=ICudaEngine,
                IExecutionContext=IExecutionContext,
                ILogger=ILogger,
                Runtime=Runtime,
                get_plugin_registry=lambda: registry,
            )
        )
    )
    return result
