"""An engine on the GPU: what networks of every kind in engines have in common."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.kernels import cuda
from dvmsr.runtime.backends.trt.cuda_memory import DeviceMemory, Event, Graph, HostMemory, Stream
from dvmsr.runtime.backends.trt.engine_info import EngineInfo, check_host
from dvmsr.runtime.backends.trt.library import Log, import_tensorrt, load_plugin, release_plugin
from dvmsr.runtime.backends.trt.rtx import KernelsAtRunTime

_KEPT_SHAPES = 8
"""How many shapes keep their execution context and graph."""


@dataclass
class Prepared:
    """An execution context whose inputs have their shapes."""

    context: Any
    calls: int = 0
    graph: Graph | None = None


class LoadedEngine:
    """An engine with its stream, its buffers and its contexts; for one thread at a time.

    Buffers are kept between calls. Work of the same kind is a CUDA graph from its second call on.

    Args:
        path: of the engine, for messages.
        info, plan: what is in its two files.
        trust: whether code for the processor that the plan carries may run, with all rights of the
            user. What the description beside the plan says does not decide that.

    Raises:
        UsageError: if the plan carries such code and is not trusted.
        DvmsrError: if not enough GPU memory is free.
        MissingComponentError: if there is no GPU, TensorRT, plugin or CUDA library.
        IncompatibleModelError: if it is of another TensorRT, GPU or plugin, or damaged.
    """

    def __init__(self, path: Path, info: EngineInfo, plan: bytes, trust: bool) -> None:
        self.path, self.info = path, info
        if info.host_code and not trust:
            raise UsageError(
                f"{path} carries {info.host_code}, code that would run on the processor with all "
                "your rights; if you trust whoever made the file, say so with --trust-engine "
                "(trust_engine=True in Python)"
            )
        try:
            self._trt: ModuleType = import_tensorrt(info.target)
            self.library = cuda.load()
            device = self.library.device()
        except MissingComponentError as error:
            capabilities = " or ".join(info.compute_capabilities)
            wanted = f"{info.gpu or 'a GPU'} (compute capability {capabilities})"
            raise MissingComponentError(f"{path} was built for {wanted}, and {error}") from None
        check_host(path, info, info.target, self._trt.__version__, device.compute_capability)
        self._free_at_first = device.free_bytes
        self.peak = 0
        """Most bytes of GPU memory taken since the engine was loaded, by whatever process."""
        self._log = Log.of(self._trt)
        self.engine = self._deserialise(plan, trust)
        self._kernels: KernelsAtRunTime | None = None
        if info.target == "rtx":
            self._kernels = KernelsAtRunTime(self._trt, self.engine, path, info.plan_sha256)
        self.stream = Stream(self.library)
        # Of the largest shapes in the profile. All contexts share it, since they take turns.
        self._scratch = DeviceMemory(self.library, self.engine.device_memory_size_v2)
        self.device: dict[str, DeviceMemory] = {}
        self.host: dict[str, HostMemory] = {}
        self.prepared: OrderedDict[Hashable, Prepared] = OrderedDict()
        self._note_memory()

    def tensors(self) -> dict[str, tuple[bool, str]]:
        """Of each input and output whether it is an input, and TensorRT's name of its type."""
        engine = self.engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        return {
            name: (
                engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT,
                engine.get_tensor_dtype(name).name,
            )
            for name in names
        }

    def reserve(self, device: Mapping[str, int], host: Mapping[str, int]) -> None:
        """Buffers of at least so many bytes by name, those of inputs and outputs by theirs.

        Raises:
            DvmsrError: if not enough memory is free.
        """
        for name, size in device.items():
            self._grow(self.device, DeviceMemory, name, size)
        for name, size in host.items():
            self._grow(self.host, HostMemory, name, size)

    def _grow(self, buffers: dict[str, Any], kind: Any, name: str, size: int) -> None:
        if name in buffers and buffers[name].size >= size:
            return
        self.prepared.clear()  # graphs and contexts hold the old addresses
        if name in buffers:
            buffers.pop(name).free()
        buffers[name] = kind(self.library, size)
        self._note_memory()

    def known(self, key: Hashable) -> Prepared | None:
        """What was kept under that key and still is."""
        if key not in self.prepared:
            return None
        self.prepared.move_to_end(key)
        return self.prepared[key]

    def context(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """A new execution context for inputs of these shapes.

        Raises:
            DvmsrError: if TensorRT makes none.
        """
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        how = self._kernels.config if self._kernels else strategy
        context = self.engine.create_execution_context(how)
        if context is None:
            raise self._failure("create an execution context")
        context.set_device_memory(self._scratch.pointer, self._scratch.size)
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise self._failure(f"take an input of shape {shape}")
        return context

    def keep(self, key: Hashable, context: Any) -> Prepared:
        """Give a context the buffers that are reserved, and keep it for the next call."""
        for name in self.tensors():
            context.set_tensor_address(name, self.device[name].pointer)
        while len(self.prepared) >= _KEPT_SHAPES:
            self.prepared.popitem(last=False)
        self.prepared[key] = Prepared(context)
        return self.prepared[key]

    def execute(self, prepared: Prepared) -> None:
        """Puts the network on the stream.

        Raises:
            DvmsrError: if TensorRT refuses.
        """
        if not prepared.context.execute_async_v3(self.stream.pointer):
            raise self._failure("run the network")

    def run(
        self,
        prepared: Prepared,
        work: Callable[[], None],
        events: tuple[Event, Event] | None = None,
    ) -> None:
        """Puts work, `execute` in it, on the stream. TensorRT wants one call with a shape before a
        recording.

        Args:
            work: always the same for one that is prepared.
            events: to be recorded before and behind it.
        """
        if events:
            events[0].record(self.stream)
        prepared.calls += 1
        if prepared.calls == 2:
            try:
                self._check_recordable(prepared)
                prepared.graph = self.stream.record(work)
            except DvmsrError as error:
                warnings.warn(
                    f"{self.path} runs without a CUDA graph, which costs some time ({error})",
                    stacklevel=2,
                )
        if prepared.graph:
            prepared.graph.launch()
        else:
            work()
        if events:
            events[1].record(self.stream)
        if prepared.calls <= 2:
            self._note_memory()
        if prepared.calls == 1 and self._kernels:
            self._kernels.keep()

    def _check_recordable(self, prepared: Prepared) -> None:
        """TensorRT for RTX tells beforehand."""
        if self._kernels and not prepared.context.is_stream_capturable(self.stream.pointer):
            raise DvmsrError("TensorRT for RTX cannot record this network")

    def _deserialise(self, plan: bytes, trust: bool) -> Any:
        trt, info = self._trt, self.info
        runtime = trt.Runtime(self._log)
        runtime.engine_host_code_allowed = trust and info.host_code is not None
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
        self.runtime = runtime  # must outlive the engine
        return engine

    def _note_memory(self) -> None:
        taken = self._free_at_first - self.library.device().free_bytes
        self.peak = max(self.peak, taken)

    def _failure(self, what: str) -> DvmsrError:
        return DvmsrError(f"TensorRT could not {what} of {self.path} ({self._log.last()})")
