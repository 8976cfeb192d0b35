"""The CUDA kernels, compiled for the host against cuda/host_cuda.h, through their C interface.

Every call poisons outputs and workspace with NaN, and guards the workspace's end.
"""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from vectors import CONV_INPUTS

from dvmsr.kernels.cuda import DTYPES, VARIANTS, ConvParams, ScanParams, ScanPlan

PLUGINS = Path(__file__).parents[2] / "plugins" / "cuda"
HOST = Path(__file__).parents[1] / "plugins" / "cuda"
LIBRARY = PLUGINS.with_name("cuda_library")
ORT = PLUGINS.with_name("ort")
SOURCES = [
    *sorted(PLUGINS.glob("*.cu")),
    *sorted(LIBRARY.glob("*.cu")),
    *sorted(path for path in ORT.glob("*.cpp") if not path.name.startswith("cpu_")),
]

INVALID_VALUE = 1
_GUARD = 64


SCAN_SOURCES = [path for path in SOURCES if path.parent == PLUGINS and "scan" in path.name]
"""Those of the scan and its plans alone."""


def compile_for_host(
    compiler: str, folder: Path, *options: str, sources: Sequence[Path] = SOURCES
) -> Path:
    """The kernels compiled with these options. `folder` keeps them for the next time."""
    files = sorted([*PLUGINS.iterdir(), *LIBRARY.iterdir(), *ORT.iterdir(), *HOST.iterdir()])
    digest = hashlib.sha256("\0".join([compiler, *options]).encode())
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    target = folder / digest.hexdigest()[:16]
    if not target.exists():
        for stale in folder.iterdir():
            stale.unlink()
        units = [part for source in sources for part in ("-x", "c++", str(source))]
        command = [
            compiler,
            "-std=c++17",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-I{HOST}",
            f"-I{PLUGINS}",
            f"-I{LIBRARY}",
            f"-I{ORT}",
            "-DDVMSR_ORT_PROVIDER=nullptr",  # the CPU's
            '-DDVMSR_ORT_MEMORY="Cpu"',
        ]
        partial = target.with_suffix(".partial")
        done = subprocess.run(
            [*command, *units, *options, "-o", str(partial)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        partial.rename(target)
    return target


Sizes = tuple[int, int, int, int, int]
"""B, L, D, G, N."""
Plan = tuple[str, int]
"""Of the scan: variant, and tokens of a part."""


def _plan(plan: Plan) -> ScanPlan:
    return ScanPlan(VARIANTS.index(plan[0]), plan[1])


def _token_stride(array: np.ndarray) -> int:
    """Elements from one token to the next; the batch elements must follow each other."""
    return array.strides[1] // array.itemsize if array.size else int(np.prod(array.shape[2:]))


class Library:
    """The operators on numpy arrays; bfloat16 arrays are ml_dtypes'."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        for name in ("workspace_size", "largest_workspace"):
            getattr(self._library, f"dvmsr_cuda_scan_{name}").restype = ctypes.c_size_t
        self._library.dvmsr_cuda_scan_plan_of.restype = ScanPlan

    def tactics(self) -> list[int]:
        """All but 0, the cost model's choice."""
        return list(range(1, 1 + self._library.dvmsr_cuda_scan_tactics()))

    def plan(self, sizes: Sizes, tactic: int, multiprocessors: int) -> Plan:
        """Variant and length."""
        params = ScanParams(0, 1, *sizes)
        plan = self._library.dvmsr_cuda_scan_plan_of(ctypes.byref(params), tactic, multiprocessors)
        return VARIANTS[plan.variant], plan.length

    def workspace_size(self, sizes: Sizes, plan: Plan) -> int:
        """Bytes that a scan needs."""
        params = ctypes.byref(ScanParams(0, 1, *sizes))
        return self._library.dvmsr_cuda_scan_workspace_size(params, _plan(plan))

    def largest_workspace(self, sizes: Sizes) -> int:
        """Bytes that every tactic on any device can do with."""
        params = ctypes.byref(ScanParams(0, 1, *sizes))
        return self._library.dvmsr_cuda_scan_largest_workspace(params)

    def scan(
        self,
        inputs: dict[str, np.ndarray],
        plan: Plan,
        y: np.ndarray | None = None,
        softplus: bool = True,
        **changed: int | None,
    ) -> tuple[np.ndarray, np.ndarray] | int:
        """y and h_last, or the status where it is not 0; no gate without z. `changed`: fields of
        the parameters."""
        u = inputs["u"]
        y = np.empty_like(u, order="C") if y is None else y
        h_last = np.full_like(inputs["h0"], np.nan)
        y[...] = np.nan
        params = ScanParams(DTYPES[u.dtype.name], softplus, *u.shape, *inputs["B"].shape[2:])
        for name, array in inputs.items():
            setattr(params, name, array.ctypes.data)
        params.y, params.h_last = y.ctypes.data, h_last.ctypes.data
        for name in inputs.keys() & {"u", "delta", "B", "C", "z"}:
            setattr(params, f"{name}_stride", _token_stride(inputs[name]))
        params.y_stride = _token_stride(y)
        for name, value in changed.items():
            setattr(params, name, value)
        size = self._library.dvmsr_cuda_scan_workspace_size(ctypes.byref(params), _plan(plan))
        workspace = np.full(size + _GUARD, 255, np.uint8)
        status = self._library.dvmsr_cuda_selective_scan(
            ctypes.byref(params), _plan(plan), ctypes.c_void_p(workspace.ctypes.data), None
        )
        assert (workspace[size:] == 255).all(), "written beyond the workspace"
        return status or (y, h_last)

    def conv(
        self,
        inputs: dict[str, np.ndarray],
        y: np.ndarray | None = None,
        activation: bool = True,
        **changed: int,
    ) -> tuple[np.ndarray, np.ndarray] | int:
        """y and the new tail, or the status where it is not 0."""
        x = inputs["x"]
        y = np.empty_like(x, order="C") if y is None else y
        new_tail = np.empty_like(inputs["tail"])
        y[...] = new_tail[...] = np.nan
        width = inputs["weight"].shape[1]
        params = ConvParams(DTYPES[x.dtype.name], activation, *x.shape, width)
        for name in CONV_INPUTS:
            setattr(params, name, inputs[name].ctypes.data)
        params.y, params.new_tail = y.ctypes.data, new_tail.ctypes.data
        params.x_stride, params.y_stride = _token_stride(x), _token_stride(y)
        for name, value in changed.items():
            setattr(params, name, value)
        status = self._library.dvmsr_cuda_causal_conv1d(ctypes.byref(params), None)
        return status or (y, new_tail)
