"""What the steps on a GPU share: arrays on the device, timing in rotation, results on disk."""

from __future__ import annotations

import ctypes
import datetime
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError
from dvmsr.kernels import cuda, driver, nvcc
from dvmsr.kernels.cpu import SCAN_ARGUMENTS
from dvmsr.runtime.backends.trt.cuda_memory import DeviceMemory, Event, Graph, HostMemory, Stream
from dvmsr.runtime.backends.trt.half import narrowed, widened
from dvmsr.runtime.bench import machine

RESULTS = Path(__file__).resolve().parents[1] / "results"
HALF = frozenset({"u", "delta", "B", "C", "z", "x", "tail", "y", "new_tail"})
"""What has the activation type; all else is FP32."""


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
        chunk: int | None = None,
        softplus: bool = True,
    ) -> None:
        self._gpu, self._dtype = gpu, dtype
        self.shape = inputs["u"].shape
        batch, length, channels = self.shape
        groups, state = inputs["B"].shape[2:]
        self._state_shape = batch, channels, state
        word = 4 if dtype == "float32" else 2
        self.tensors = {
            name: gpu.put(inputs[name], name, dtype)
            for name in SCAN_ARGUMENTS.split()
            if name in inputs
        }
        self.tensors["y"] = gpu.memory(int(np.prod(self.shape)) * word)
        self.tensors["h_last"] = gpu.memory(batch * channels * state * 4)
        pointers = {name: memory.pointer for name, memory in self.tensors.items()}
        strides = {"u": channels, "delta": channels, "z": channels, "y": channels}
        strides |= {"B": groups * state, "C": groups * state}
        self.params = cuda.ScanParams(
            cuda.DTYPES[dtype], softplus, batch, length, channels, groups, state, **pointers,
            **{f"{name}_stride": stride for name, stride in strides.items()},
        )  # fmt: skip
        self.chunk = chunk or gpu.library.scan_chunk(self.params, gpu.info.multiprocessors)
        self._workspace = gpu.memory(gpu.library.workspace("scan", self.params, self.chunk))

    def launch(self) -> None:
        """Put it on the stream."""
        self._gpu.library.call(
            "selective_scan",
            ctypes.byref(self.params),
            self.chunk,
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
    """The kernels of probes.cu, compiled for this GPU.

    Raises:
        DvmsrError: if they cannot be compiled.
    """

    def __init__(self) -> None:
        device = driver.first()
        if device is None:
            raise DvmsrError("there is no GPU to compile the probes for; run this on one")
        architecture = device.compute_capability.replace(".", "")
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "probes.so"
            compile_probes(target, f"-arch=sm_{architecture}", "-shared", "-Xcompiler=-fPIC")
            self._library = ctypes.CDLL(str(target))
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

    def scan_per_channel(self, params: ctypes.Structure, stream: Stream) -> None:
        """One thread and one loop per channel."""
        queue = ctypes.c_void_p(stream.pointer)
        self._check(self._library.probe_scan_per_channel(ctypes.byref(params), queue))

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise DvmsrError(f"a probe failed with CUDA status {status}")


def compile_probes(target: Path, *options: str) -> None:
    """Compile probes.cu with these options of nvcc.

    Raises:
        DvmsrError: if that fails.
    """
    command = [str(nvcc.find().path), "-std=c++17", "-O3", *options]
    command += [f"-I{nvcc.sources() / 'cuda'}", str(Path(__file__).with_name("probes.cu"))]
    done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
    if done.returncode:
        raise DvmsrError(f"probes.cu does not compile: {done.stderr.strip()}")


def median(seconds: Sequence[float]) -> float:
    return float(np.median(seconds))


def prefix(name: str) -> str:
    """`<gpu>-<date>`, as all results of one run are called; `DVMSR_RUN` sets it."""
    given = os.environ.get("DVMSR_RUN")
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return given or f"{slug}-{today}"


def write(step: str, device: cuda.Device, content: dict[str, Any]) -> None:
    """Store as benchmarks/results/<gpu>-<date>-<step>.json and print it."""
    whole = {"gpu": vars(device), "machine": machine.describe(), **content}
    text = json.dumps(whole, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{prefix(device.name)}-{step}.json").write_text(text + "\n")
    print(text)
