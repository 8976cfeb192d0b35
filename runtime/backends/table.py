"""The backends: which models each takes, and how it loads them, for pictures or for arrays.

Imports the library of none: that comes with the first file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.kernels import cpu, driver
from dvmsr.utils.paths import IMPORT_PATH
from dvmsr.weights.registry import CHECKPOINTS, ENGINE, SUFFIXES

if TYPE_CHECKING:
    from dvmsr.runtime.backends.base import Enlarger
    from dvmsr.runtime.backends.tensors import TensorNetwork


FACTORY = ":"
"""In place of a suffix: `package.module:factory`."""


@dataclass(frozen=True)
class Request:
    """A model that is to be loaded."""

    model: str
    """As its user named it."""
    path: Path
    """Its file."""
    backend: str
    threads: int | None = None
    trust_engine: bool = False
    """Whether code in an engine may run."""
    time_limit: float | None = None
    """Most seconds for one run of a graph that may have no end, an ONNX file's; None for any."""
    peak: int | None = None
    """The brightest value that another program's network takes and gives, if that is known."""


@dataclass(frozen=True)
class Backend:
    """What runs networks."""

    name: str
    suffixes: tuple[str, ...]
    """Of the files that it takes."""
    load: Callable[[Request], Enlarger]
    """For pictures."""
    open: Callable[[Request], TensorNetwork]
    """Any network, for arrays."""
    misfit: Callable[[str, str, Path], DvmsrError]
    """What to raise for another file: the backend's name, that of the model and its file."""
    on_gpu: bool = False
    usable: Callable[[Path], bool] = lambda path: True
    """Whether `auto` may take it for a file."""
    drawback: Callable[[Path], str | None] = lambda path: None
    """What the user is told when `auto` takes it for a file."""


def _load_onnx(asked: Request) -> Enlarger:
    from dvmsr.runtime.backends.onnxrt.foreign import ForeignNetwork
    from dvmsr.runtime.backends.onnxrt.onnx_file import ForeignFileError
    from dvmsr.runtime.backends.onnxrt.streaming import open_onnx

    how = (asked.path, asked.backend, asked.threads)
    if asked.peak is None:
        with suppress(ForeignFileError):
            return open_onnx(*how)
    return ForeignNetwork(*how, asked.peak, asked.time_limit)


def _open_onnx(asked: Request) -> TensorNetwork:
    from dvmsr.runtime.backends.onnxrt.tensors import OnnxTensors

    return OnnxTensors(asked.path, asked.backend, asked.threads)


def _has_operators(path: Path) -> bool:
    from dvmsr.runtime.backends.onnxrt.onnx_file import read_facts

    try:
        return read_facts(path).has_operators
    except DvmsrError:  # which loading it tells
        return True


def _why_portable(path: Path) -> str | None:
    from dvmsr.runtime.backends.onnxrt.onnx_file import is_foreign, read_facts

    if _has_operators(path):
        return (
            "dvmsr was built without its native operators and uses the portable ones, "
            f"which are several times slower; {cpu.REMEDY}"
        )
    if is_foreign(read_facts(path).metadata):
        return None  # there is nothing that would be faster
    return (
        f"{path} has its operators written out in standard ones, which are several times "
        "slower than the native ones; export it without --inline to have those"
    )


def _no_onnx(name: str, model: str, path: Path) -> DvmsrError:
    return UsageError(f"backend {name} runs ONNX files; make one with `dvmsr-export onnx {path}`")


def _load_checkpoint(asked: Request) -> Enlarger:
    from dvmsr.runtime.backends.pytorch.network import TorchNetwork

    return TorchNetwork(asked.path, asked.threads)


def _open_module(asked: Request) -> TensorNetwork:
    from dvmsr.runtime.backends.pytorch.tensors import TorchTensors

    return TorchTensors(asked.model, asked.threads)


def _no_checkpoint(name: str, model: str, path: Path) -> DvmsrError:
    return UsageError(f"backend {name} runs checkpoints, not {path}; leave out the backend")


def _load_engine(asked: Request) -> Enlarger:
    from dvmsr.runtime.backends.trt.engine import EngineNetwork

    return EngineNetwork(asked.path, asked.trust_engine)


def _open_engine(asked: Request) -> TensorNetwork:
    from dvmsr.runtime.backends.trt.tensors import EngineTensors

    return EngineTensors(asked.path, asked.trust_engine)


def _no_engine(name: str, model: str, path: Path) -> DvmsrError:
    """Tells first of what is missing for any engine."""
    from dvmsr.runtime.backends.trt.library import import_tensorrt

    try:
        import_tensorrt("gpu")
    except MissingComponentError as error:
        return MissingComponentError(f"the backend {name} cannot be used: {error}")
    if driver.first() is None:
        return MissingComponentError(
            f"the backend {name} cannot be used: there is no NVIDIA GPU that CUDA can use; "
            "install the driver for one"
        )
    if _kind(path) == FACTORY:
        return UsageError(
            f"the backend {name} runs engines, not {model}; make an ONNX file of it with "
            f"`dvmsr-export onnx {model}`, an engine of that with `dvmsr-export trt`, and name the "
            "engine"
        )
    half = " --fp16" if path.suffix.lower() in CHECKPOINTS else ""
    return UsageError(
        f"the backend {name} runs engines, not {model}; make one with "
        f"`dvmsr-export trt {model}{half}` and name its file in place of {model}"
    )


_ROWS = (
    Backend(
        *("native", (".onnx",), _load_onnx, _open_onnx, _no_onnx),
        usable=lambda path: cpu.library_path() is not None and _has_operators(path),
    ),
    Backend(*("portable", (".onnx",), _load_onnx, _open_onnx, _no_onnx), drawback=_why_portable),
    Backend("torch", (*CHECKPOINTS, FACTORY), _load_checkpoint, _open_module, _no_checkpoint),
    Backend("cuda", (".onnx",), _load_onnx, _open_onnx, _no_onnx, on_gpu=True),
    Backend("tensorrt", (ENGINE,), _load_engine, _open_engine, _no_engine, on_gpu=True),
)
"""`auto` takes the first that is usable and takes the file."""
BACKENDS = {backend.name: backend for backend in _ROWS}
NAMES = ("auto", *BACKENDS)


def choose(name: str, model: str, path: Path) -> Backend:
    """The backend of one of `NAMES`; warns if `auto` finds none without a drawback.

    Args:
        model: as the user names it.
        path: its file, of one of `registry.SUFFIXES`, or the import path of a factory.

    Raises:
        UsageError: if there is no such backend, or it does not take the file.
        MissingComponentError: if it does not, and could not be used with any.
    """
    if name not in NAMES:
        raise UsageError(f"no backend {name}; there are {', '.join(NAMES)}")
    kind = _kind(path)
    if name == "auto":
        found = next(b for b in _ROWS if kind in b.suffixes and b.usable(path))
        if drawback := found.drawback(path):
            warnings.warn(drawback, stacklevel=3)
        return found
    if kind in BACKENDS[name].suffixes:
        return BACKENDS[name]
    if kind == ENGINE:
        raise UsageError(f"{path} is a TensorRT engine; leave out the backend {name}")
    raise BACKENDS[name].misfit(name, model, path)


def _kind(path: Path) -> str:
    """Its suffix, or `FACTORY`."""
    suffix = path.suffix.lower()
    return FACTORY if suffix not in SUFFIXES and IMPORT_PATH.fullmatch(str(path)) else suffix


def needs_gpu(name: str, model: str) -> bool:
    """Whether the backend of one of `NAMES` computes on a GPU; the model need not be here."""
    suffix = Path(model).suffix.lower()
    takers = [BACKENDS[name]] if name in BACKENDS else [b for b in _ROWS if suffix in b.suffixes]
    return bool(takers) and takers[0].on_gpu
