"""The shared library with the operators' CUDA kernels (`plugins/cuda_library`), torch-free.

It is compiled for the machine's GPU when it is first needed (`dvmsr.kernels.cuda_build`), and
brings its own CUDA runtime. All calls are about the current device of the calling thread.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_void_p,
)
from dataclasses import dataclass
from pathlib import Path

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.kernels.cpu import CONV_ARGUMENTS, SCAN_ARGUMENTS

ABI_VERSION = 3
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
PIXELS = {"uint8": 0, "uint16": 1, "float32": 2}
VARIANTS = "relay", "chunks"
"""Of the scan, by number."""
WHOLE = 2**31 - 1
"""The length of a plan that makes the whole sequence one part."""

_OUT_OF_MEMORY = 2
_REMEDY = "delete it, and `dvmsr-export cuda-path --build` builds it again"


def _structure(
    name: str, first: list[tuple[str, type]], sizes: str, pointers: str, strides: str = ""
) -> type[Structure]:
    fields: list[tuple[str, type]] = [*first]
    fields += [(size, c_int64) for size in sizes.split()]
    fields += [(pointer, c_void_p) for pointer in pointers.split()]
    fields += [(f"{tensor}_stride", c_int64) for tensor in strides.split()]
    return type(name, (Structure,), {"_fields_": fields})


_DTYPE: list[tuple[str, type]] = [("dtype", c_int)]
ScanParams = _structure(
    "ScanParams",
    [*_DTYPE, ("delta_softplus", c_int32)],
    "batch length channels groups state",
    f"{SCAN_ARGUMENTS} y h_last",
    "u delta B C z y",
)


class ScanPlan(Structure):
    """How a scan is computed: by which variant, in parts of how many tokens."""

    _fields_ = (("variant", c_int), ("length", c_int32))

    def __str__(self) -> str:
        return f"{VARIANTS[self.variant]} {'whole' if self.length == WHOLE else self.length}"


ConvParams = _structure(
    "ConvParams",
    [*_DTYPE, ("activation", c_int32)],
    "batch length channels width",
    f"{CONV_ARGUMENTS} y new_tail",
    "x y",
)
ScanOutputGradients = _structure("ScanOutputGradients", [], "", "y h_last")
ScanGradients = _structure("ScanGradients", [], "", SCAN_ARGUMENTS)
ConvOutputGradients = _structure("ConvOutputGradients", [], "", "y new_tail")
ConvGradients = _structure("ConvGradients", [], "", CONV_ARGUMENTS)
Picture = _structure(
    "Picture", [("type", c_int), ("dtype", c_int)], "batch height width", "pixels planes"
)


class _DeviceInfo(Structure):
    _fields_ = [
        ("name", c_char * 256),
        *((name, c_int32) for name in ("major", "minor", "multiprocessors")),
        *((name, c_int32) for name in ("driver_version", "runtime_version")),
        *((name, c_int64) for name in ("l2_bytes", "total_bytes", "free_bytes")),
    ]


@dataclass(frozen=True)
class Device:
    """A GPU; sizes in bytes."""

    name: str
    compute_capability: str
    """Such as `8.9`."""
    multiprocessors: int
    driver: str
    """The newest CUDA that the driver supports, such as `13.0`."""
    runtime: str
    """The CUDA runtime in the library."""
    l2_bytes: int
    total_bytes: int
    free_bytes: int


_handle_out = POINTER(c_void_p)
_SIGNATURES: dict[str, list[type]] = {
    "device_of_thread": [POINTER(_DeviceInfo)],
    "malloc": [_handle_out, c_size_t],
    "free": [c_void_p],
    "malloc_host": [_handle_out, c_size_t],
    "free_host": [c_void_p],
    "copy": [c_void_p, c_void_p, c_size_t, c_void_p],
    "fill": [c_void_p, c_int32, c_size_t, c_void_p],
    "stream_create": [_handle_out],
    "stream_destroy": [c_void_p],
    "stream_synchronize": [c_void_p],
    "graph_begin": [c_void_p],
    "graph_end": [c_void_p, _handle_out],
    "graph_launch": [c_void_p, c_void_p],
    "graph_destroy": [c_void_p],
    "event_create": [_handle_out],
    "event_destroy": [c_void_p],
    "event_record": [c_void_p, c_void_p],
    "event_elapsed": [c_void_p, c_void_p, POINTER(c_float)],
    "planes_from_pixels": [POINTER(Picture), c_void_p],
    "pixels_from_planes": [POINTER(Picture), c_void_p, c_void_p],
    "selective_scan": [POINTER(ScanParams), ScanPlan, c_void_p, c_void_p],
    "causal_conv1d": [POINTER(ConvParams), c_void_p],
    "selective_scan_backward": [
        POINTER(ScanParams),
        POINTER(ScanOutputGradients),
        POINTER(ScanGradients),
        c_void_p,
        c_void_p,
    ],
    "causal_conv1d_backward": [
        POINTER(ConvParams),
        POINTER(ConvOutputGradients),
        POINTER(ConvGradients),
        c_void_p,
        c_void_p,
    ],
}
"""Of the functions `dvmsr_cuda_*` that return a status."""
_SIZES: dict[str, list[type]] = {
    "scan_workspace_size": [POINTER(ScanParams), ScanPlan],
    "scan_backward_workspace_size": [POINTER(ScanParams)],
    "conv_backward_workspace_size": [POINTER(ConvParams)],
}
"""Of those that return bytes of device memory."""


@functools.cache
def load() -> Library:
    """This machine's library; compiled first where there is none yet.

    Raises:
        MissingComponentError: if it cannot be compiled or loaded here.
    """
    from dvmsr.kernels import cuda_build

    return Library(cuda_build.require())


class Library:
    """A loaded library.

    Raises:
        MissingComponentError: if it cannot be loaded or has another ABI.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._library = ctypes.CDLL(str(path))
            version = self._library.dvmsr_cuda_abi_version()
        except (OSError, AttributeError) as error:
            raise MissingComponentError(f"{path} cannot be loaded ({error}); {_REMEDY}") from None
        if version != ABI_VERSION:
            raise MissingComponentError(f"{path} belongs to another version of dvmsr; {_REMEDY}")
        for name, arguments in _SIGNATURES.items():
            getattr(self._library, f"dvmsr_cuda_{name}").argtypes = arguments
        self._library.dvmsr_cuda_error_text.restype = c_char_p
        for name, arguments in _SIZES.items():
            function = getattr(self._library, f"dvmsr_cuda_{name}")
            function.restype, function.argtypes = c_size_t, arguments
        plan_of = self._library.dvmsr_cuda_scan_plan_of
        plan_of.restype, plan_of.argtypes = ScanPlan, [POINTER(ScanParams), c_int32, c_int32]

    def call(self, function: str, *arguments: object) -> None:
        """Call `dvmsr_cuda_<function>`.

        Raises:
            DvmsrError: if it reports a failure.
        """
        status = getattr(self._library, f"dvmsr_cuda_{function}")(*arguments)
        if status == _OUT_OF_MEMORY:
            raise DvmsrError("the GPU has too little free memory; use a smaller image or batch")
        if status:
            raise DvmsrError(f"CUDA failed in {function} ({self._text(status)})")

    def device(self) -> Device:
        """The calling thread's GPU.

        Raises:
            MissingComponentError: if there is none that CUDA can use.
        """
        info = _DeviceInfo()
        status = self._library.dvmsr_cuda_device_of_thread(ctypes.byref(info))
        if status:
            raise MissingComponentError(
                f"there is no NVIDIA GPU that CUDA can use ({self._text(status)}); install the "
                "driver for one"
            )
        return Device(
            name=info.name.decode(errors="replace"),
            compute_capability=f"{info.major}.{info.minor}",
            multiprocessors=info.multiprocessors,
            driver=_version(info.driver_version),
            runtime=_version(info.runtime_version),
            l2_bytes=info.l2_bytes,
            total_bytes=info.total_bytes,
            free_bytes=info.free_bytes,
        )

    def scan_tactics(self) -> int:
        """How many ways of cutting a sequence are worth timing, numbered from 1."""
        count: int = self._library.dvmsr_cuda_scan_tactics()
        return count

    def scan_plan(self, params: Structure, multiprocessors: int, tactic: int = 0) -> ScanPlan:
        """A tactic's plan for these sizes; that of 0 is what the cost model prefers."""
        plan: ScanPlan = self._library.dvmsr_cuda_scan_plan_of(
            ctypes.byref(params), tactic, multiprocessors
        )
        return plan

    def workspace(self, operator: str, params: Structure, *arguments: ScanPlan) -> int:
        """What `dvmsr_cuda_<operator>_workspace_size` answers: bytes of device memory."""
        function = getattr(self._library, f"dvmsr_cuda_{operator}_workspace_size")
        size: int = function(ctypes.byref(params), *arguments)
        return size

    def _text(self, status: int) -> str:
        text: bytes = self._library.dvmsr_cuda_error_text(status)
        return text.decode()


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
