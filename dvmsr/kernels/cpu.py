"""The shared library with the operators' CPU kernels (`plugins/include/dvmsr_ops.h`), torch-free.

The same library registers the custom operators with ONNX Runtime.
"""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_float,
    c_int,
    c_int64,
    c_size_t,
    c_void_p,
)
from pathlib import Path

import dvmsr
from dvmsr.errors import DvmsrError, MissingComponentError, UsageError

ABI_VERSION = 4
REMEDY = "reinstall dvmsr where GCC or Clang can build them (`pip install -v` shows why not)"

_NAMES = ("libdvmsr_ops.so", "libdvmsr_ops.dylib", "dvmsr_ops.dll", "libdvmsr_ops.dll")
_STATUS = {1: "invalid argument", 2: "out of memory", 3: "internal failure"}
ISAS = ("baseline", "avx2", "avx512")
DTYPES = {"float32": 0, "float16": 1, "float64": 2}


class _Executor(Structure):
    _fields_ = [
        ("threads", c_int),
        ("parallel_for", CFUNCTYPE(None, c_void_p, c_void_p, c_size_t, c_void_p)),
        ("context", c_void_p),
    ]


def _structure(
    name: str, kind: str, sizes: str, pointers: str, numbers: str = ""
) -> type[Structure]:
    fields: list[tuple[str, type]] = [(number, c_int) for number in kind.split()]
    fields += [(number, c_float) for number in numbers.split()]
    fields += [(size, c_int64) for size in sizes.split()]
    fields += [(pointer, c_void_p) for pointer in pointers.split()]
    return type(name, (Structure,), {"_fields_": fields})


SCAN_ARGUMENTS = "u delta A B C D delta_bias h0 z"
CONV_ARGUMENTS = "x weight bias tail"
ScanInputs = _structure(
    "ScanInputs",
    "dtype delta_softplus channel_major",
    "batch length channels groups state",
    SCAN_ARGUMENTS,
)
ScanOutputs = _structure("ScanOutputs", "", "", "y h_last")
ScanGradients = _structure("ScanGradients", "", "", SCAN_ARGUMENTS)
ConvInputs = _structure(
    "ConvInputs", "dtype activation", "batch length channels width", CONV_ARGUMENTS
)
ConvOutputs = _structure("ConvOutputs", "", "", "y new_tail")
ConvGradients = _structure("ConvGradients", "", "", CONV_ARGUMENTS)
MixerWeights = _structure(
    "MixerWeights",
    "dtype",
    "channels inner state rank width out_channels",
    "norm_weight norm_bias in_proj_x in_proj_z conv1d_weight conv1d_bias "
    "x_proj_dt x_proj_B x_proj_C dt_proj A D delta_bias out_proj",
    "epsilon",
)
MixerInputs = _structure("MixerInputs", "", "batch length", "x tail h0")
MixerOutputs = _structure("MixerOutputs", "", "", "y new_tail h_last")
Conv3x3Weights = _structure("Conv3x3Weights", "dtype", "channels out_channels", "weight bias")
Conv3x3Inputs = _structure(
    "Conv3x3Inputs", "", "batch height width top left bottom right above_rows", "x above"
)
StripAddInputs = _structure(
    "StripAddInputs", "dtype", "batch rows waiting_rows x_rows row", "deep waiting x"
)


def library_path() -> Path | None:
    """Where the library is installed; None if this copy of dvmsr was built without it."""
    for folder in dvmsr.__path__:
        for name in _NAMES:
            path = Path(folder) / "_native" / name
            if path.is_file():
                return path
    return None


@functools.cache
def load() -> ctypes.CDLL:
    """The loaded library with its functions' types declared.

    Raises:
        MissingComponentError: if it is not installed, cannot be loaded or has another ABI.
        UsageError: if DVMSR_ISA names no instruction set, or one that this machine lacks.
    """
    path = library_path()
    if path is None:
        raise MissingComponentError(f"dvmsr was built without its native operators; {REMEDY}")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise MissingComponentError(f"{path} cannot be loaded ({error}); {REMEDY}") from None
    library.dvmsr_abi_version.restype = c_int
    if library.dvmsr_abi_version() != ABI_VERSION:
        raise MissingComponentError(f"{path} belongs to another version of dvmsr; reinstall dvmsr")
    library.dvmsr_isa.restype = c_char_p
    _check_isa(library.dvmsr_isa().decode())
    executor = POINTER(_Executor)
    for operator, inputs, outputs, gradients in (
        ("selective_scan", ScanInputs, ScanOutputs, ScanGradients),
        ("causal_conv1d", ConvInputs, ConvOutputs, ConvGradients),
    ):
        forward = getattr(library, f"dvmsr_{operator}_forward")
        forward.argtypes = [POINTER(inputs), POINTER(outputs), executor]
        backward = getattr(library, f"dvmsr_{operator}_backward")
        backward.argtypes = [POINTER(inputs), c_void_p, c_void_p, POINTER(gradients), executor]
    for operator, weights in (("mixer", MixerWeights), ("conv3x3", Conv3x3Weights)):
        getattr(library, f"dvmsr_{operator}_pack").argtypes = [POINTER(weights), POINTER(c_void_p)]
        free = getattr(library, f"dvmsr_{operator}_free")
        free.argtypes, free.restype = [c_void_p], None
    library.dvmsr_mamba_mixer_forward.argtypes = [
        c_void_p,
        POINTER(MixerInputs),
        POINTER(MixerOutputs),
        executor,
    ]
    library.dvmsr_conv3x3_forward.argtypes = [c_void_p, POINTER(Conv3x3Inputs), c_void_p, executor]
    library.dvmsr_strip_add_forward.argtypes = [POINTER(StripAddInputs), c_void_p, executor]
    library.dvmsr_transpose.argtypes = [c_void_p, c_void_p, *[c_int64] * 4, executor]
    return library


def _check_isa(used: str) -> None:
    wanted = os.environ.get("DVMSR_ISA") or used
    if wanted not in ISAS:
        raise UsageError(f"DVMSR_ISA is {wanted!r}; set it to {', '.join(ISAS)}, or not at all")
    if wanted != used:
        raise UsageError(
            f"DVMSR_ISA is {wanted}, and the native operators have no more than {used} on this "
            "machine; set it to that, or not at all"
        )


def isa() -> str:
    """The instruction set that the kernels use on this machine."""
    return str(load().dvmsr_isa().decode())


def call(function: str, *arguments: object, threads: int) -> None:
    """Call `dvmsr_<function>` with that many threads (0: one per processor).

    Raises:
        DvmsrError: if it reports a failure.
    """
    _checked_call(function, *arguments, _Executor(threads=threads))


@contextmanager
def packed(operator: str, weights: Structure) -> Iterator[c_void_p]:
    """The weights of a `mixer` (MixerWeights) or a `conv3x3` (Conv3x3Weights) as its kernels read
    them, for `call("mamba_mixer_forward", ...)` or `call("conv3x3_forward", ...)`, until the end
    of the context. The arrays that `weights` points to need not live longer than this call.

    Raises:
        DvmsrError: if it reports a failure.
    """
    handle = c_void_p()
    _checked_call(f"{operator}_pack", weights, byref(handle))
    try:
        yield handle
    finally:
        getattr(load(), f"dvmsr_{operator}_free")(handle)


def _checked_call(function: str, *arguments: object) -> None:
    status = getattr(load(), f"dvmsr_{function}")(*arguments)
    if status:
        raise DvmsrError(f"native {function}: {_STATUS.get(status, f'status {status}')}")
