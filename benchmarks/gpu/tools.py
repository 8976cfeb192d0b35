"""What the steps on a GPU share: arrays on the device, and the kernels of probes.cu."""

from __future__ import annotations

import copy
import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.kernels import cuda, driver, nvcc
from dvmsr.kernels.cpu import SCAN_ARGUMENTS
from dvmsr.runtime.backends.trt.cuda_memory import DeviceMemory, Event, Graph, HostMemory, Stream
from dvmsr.runtime.backends.trt.half import narrowed, widened

PROBES = "DVMSR_GPU_PROBES"
"""The environment variable that names compiled probes, for all steps of a run."""
HALF = frozenset({"u", "delta", "B", "C", "z", "x", "tail", "y", "new_tail"})
"""What has the activation type; all else is FP32."""
BY_TOKEN = ("u", "delta", "B", "C", "z")


class Gpu:
    """This machine's GPU with dvmsr's library."""

    def __init__(self) -> None:
        self.library = cuda.load()
        self.info = self.library.device()
        self.stream = Stream(self.library)

    def memory(self, size: int) -> DeviceMemory:
        """Device memory that starts as NaN in every floating-point type."""
        memory = DeviceMemory(self.library, size)
        self.stream.fill(memory.pointer, 0xFF, size)
        return memory

    def put(self, array: NDArray[Any], name: str = "", dtype: str = "float32") -> DeviceMemory:
        """An array in device memory; the tensor `name` of an operator in its type for `dtype`."""
        words = narrowed(array, dtype if name in HALF else "float32")
        memory, host = self.memory(words.nbytes), HostMemory(self.library, words.nbytes)
        host.array(words.dtype, words.shape)[...] = words
        self.stream.copy(memory.pointer, host.pointer, words.nbytes)
        self.stream.synchronize()
        return memory

    def get(
        self, memory: DeviceMemory, shape: tuple[int, ...], name: str = "", dtype: str = "float32"
    ) -> NDArray[np.float32]:
        """The array back from device memory."""
        dtype = dtype if name in HALF else "float32"
        words = np.dtype(np.float32 if dtype == "float32" else np.uint16)
        host = HostMemory(self.library, memory.size)
        size = int(np.prod(shape)) * words.itemsize
        self.stream.copy(host.pointer, memory.pointer, size)
        self.stream.synchronize()
        return widened(host.array(words, shape), dtype)

    def repeated(
        self, memory: DeviceMemory, size: int | None = None, batch: int = 1
    ) -> DeviceMemory:
        """Its bytes over and over, `size` of them (by default its own) per batch element."""
        size = memory.size if size is None else size
        whole = self.memory(batch * size)
        for start in range(0, batch * size, size):
            for at in range(0, size, memory.size):
                part = min(memory.size, size - at)
                self.stream.copy(whole.pointer + start + at, memory.pointer, part)
        self.stream.synchronize()
        return whole

    def graph(self, work: Callable[[], None]) -> Graph:
        """The work, run once and then recorded."""
        work()
        self.stream.synchronize()
        return self.stream.record(work)

    def seconds(self, graph: Graph) -> float:
        """What one launch takes on the GPU."""
        first, last = Event(self.library), Event(self.library)
        first.record(self.stream)
        graph.launch()
        last.record(self.stream)
        self.stream.synchronize()
        return first.seconds_until(last)


class Scan:
    """A selective scan on the device: its tensors, parameters and workspace; no gate without z."""

    def __init__(
        self,
        gpu: Gpu,
        inputs: dict[str, NDArray[Any]],
        dtype: str,
        tactic: int = 0,
        softplus: bool = True,
        sizes: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            tactic: how the sequence is cut; 0 is the cost model's choice.
            softplus: whether it is applied to delta.
            sizes: B and L, to which the tokens of a single sequence are repeated.
        """
        tensors = {
            name: gpu.put(inputs[name], name, dtype)
            for name in SCAN_ARGUMENTS.split()
            if name in inputs
        }
        *_, channels = self.shape = inputs["u"].shape
        self._rows = inputs["B"].shape[2:]
        self._softplus = softplus
        if sizes:
            batch, length = sizes
            self.shape = batch, length, channels
            for name in filter(tensors.__contains__, BY_TOKEN):
                row = tensors[name].size // inputs["u"].shape[1]
                tensors[name] = gpu.repeated(gpu.repeated(tensors[name], length * row), batch=batch)
            tensors["h0"] = gpu.repeated(tensors["h0"], batch=batch)
        self._begin(gpu, tensors, dtype, tactic)

    def by(self, tactic: int) -> Scan:
        """The same, on the same tensors, cut as another tactic has it."""
        other = copy.copy(self)
        other._cut(tactic)
        return other

    def copy(self) -> Scan:
        """The same in memory of its own."""
        other = object.__new__(Scan)
        other.shape, other._rows, other._softplus = self.shape, self._rows, self._softplus
        tensors = {
            name: self._gpu.repeated(self.tensors[name])
            for name in SCAN_ARGUMENTS.split()
            if name in self.tensors
        }
        other._begin(self._gpu, tensors, self._dtype, self._tactic)
        return other

    def _begin(self, gpu: Gpu, tensors: dict[str, DeviceMemory], dtype: str, tactic: int) -> None:
        self._gpu, self._dtype, self.tensors = gpu, dtype, tensors
        batch, length, channels = self.shape
        groups, state = self._rows
        self._state_shape = batch, channels, state
        word = 4 if dtype == "float32" else 2
        tensors["y"] = gpu.memory(int(np.prod(self.shape)) * word)
        tensors["h_last"] = gpu.memory(batch * channels * state * 4)
        pointers = {name: memory.pointer for name, memory in tensors.items()}
        strides = {"u": channels, "delta": channels, "z": channels, "y": channels}
        strides |= {"B": groups * state, "C": groups * state}
        self.params = cuda.ScanParams(
            cuda.DTYPES[dtype], self._softplus, batch, length, channels, groups, state,
            **pointers, **{f"{name}_stride": stride for name, stride in strides.items()},
        )  # fmt: skip
        self._cut(tactic)

    def _cut(self, tactic: int) -> None:
        library, multiprocessors = self._gpu.library, self._gpu.info.multiprocessors
        self._tactic, self.plan = tactic, library.scan_plan(self.params, multiprocessors, tactic)
        self._workspace = self._gpu.memory(library.workspace("scan", self.params, self.plan))

    def launch(self) -> None:
        """Put it on the stream."""
        self._gpu.library.call(
            "selective_scan",
            ctypes.byref(self.params),
            self.plan,
            self._workspace.pointer,
            self._gpu.stream.pointer,
        )

    def results(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """y and h_last; the outputs are poisoned again for the next launch."""
        y = self._gpu.get(self.tensors["y"], self.shape, "y", self._dtype)
        h_last = self._gpu.get(self.tensors["h_last"], self._state_shape)
        for name in ("y", "h_last"):
            memory = self.tensors[name]
            self._gpu.stream.fill(memory.pointer, 0xFF, memory.size)
        return y, h_last


class Probes:
    """The kernels of probes.cu, compiled for this GPU, or those that `PROBES` names.

    Raises:
        MissingComponentError: if there is no GPU or no compiler.
        DvmsrError: if they cannot be compiled or loaded.
    """

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(os.environ.get(PROBES) or compile_probes(Path(folder) / "probes.so"))
            try:
                self._library = ctypes.CDLL(str(path))
            except OSError as error:
                raise DvmsrError(f"the probes cannot be loaded ({error}); unset {PROBES}") from None
        self._library.probe_operations.restype = ctypes.c_int64

    def operations(self, blocks: int, threads: int, iterations: int) -> int:
        """How many one launch of `rate` does."""
        count: int = self._library.probe_operations(blocks, threads, iterations)
        return count

    def rate(
        self, name: str, out: DeviceMemory, grid: tuple[int, int, int], stream: Stream
    ) -> None:
        """`ex2` or `fma` on (blocks, threads, iterations)."""
        pointer, queue = ctypes.c_void_p(out.pointer), ctypes.c_void_p(stream.pointer)
        self._check(getattr(self._library, f"probe_{name}")(pointer, *grid, queue))

    def exponentials(self, gpu: Gpu, exponents: NDArray[np.float32]) -> NDArray[np.float32]:
        """2^x of a flat array, as the scan's kernels compute it."""
        given, found = gpu.put(exponents), gpu.memory(exponents.nbytes)
        pointers = [ctypes.c_void_p(memory.pointer) for memory in (given, found)]
        queue = ctypes.c_void_p(gpu.stream.pointer)
        count = ctypes.c_int64(exponents.size)
        self._check(self._library.probe_exponentials(*pointers, count, queue))
        return gpu.get(found, exponents.shape)

    def scan_per_channel(self, params: ctypes.Structure, stream: Stream) -> None:
        """One thread and one loop per channel."""
        queue = ctypes.c_void_p(stream.pointer)
        self._check(self._library.probe_scan_per_channel(ctypes.byref(params), queue))

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise DvmsrError(f"a probe failed with CUDA status {status}")


def compile_probes(target: Path) -> Path:
    """Compile probes.cu for this machine's GPU.

    Raises:
        MissingComponentError: if there is no GPU or no compiler.
        DvmsrError: if that fails.
    """
    device = driver.first()
    if device is None:
        raise MissingComponentError("there is no GPU to compile the probes for; run this on one")
    architecture = device.compute_capability.replace(".", "")
    command = [str(nvcc.find().path), "-std=c++17", "-O3", f"-arch=sm_{architecture}"]
    command += ["-shared", "-Xcompiler=-fPIC", f"-I{nvcc.sources() / 'cuda'}"]
    command += [str(Path(__file__).with_name("probes.cu")), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DvmsrError(f"probes.cu does not compile: {done.stderr.strip()}")
    return target


def median(seconds: Sequence[float]) -> float:
    return float(np.median(seconds))
