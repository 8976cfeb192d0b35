"""The backends: which files each takes and how it loads them.

Imports the library of none: that comes with the first file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.kernels import cpu, driver
from dvmsr.weights.registry import CHECKPOINTS, ENGINE

if TYPE_CHECKING:
    from dvmsr.runtime.backends.base import Network


@dataclass(frozen=True)
class Backend:
    """What runs networks."""

    name: str
    suffixes: tuple[str, ...]
    """Of the files that it takes."""
    load: Callable[[Path, str, int | None, bool], Network]
    """A file, the backend's name, a number of threads, or None, and whether code in an engine may
    run -> the network in the file."""
    misfit: Callable[[str, str, Path], DvmsrError]
    """What to raise for another file: the backend's name, that of the model and its file."""
    on_gpu: bool = False
    usable: Callable[[Path], bool] = lambda path: True
    """Whether `auto` may take it for a file."""
    drawback: Callable[[Path], str] | None = None
    """What the user is told when `auto` takes it for a file."""


def _load_onnx(path: Path, name: str, threads: int | None, trust_engine: bool) -> Network:
    from dvmsr.runtime.backends.onnxrt.streaming import open_onnx

    return open_onnx(path, name, threads)


def _has_operators(path: Path) -> bool:
    from dvmsr.runtime.backends.onnxrt.onnx_file import read_header

    try:
        return read_header(path).has_operators
    except DvmsrError:  # which loading it tells
        return True


def _why_portable(path: Path) -> str:
    if not _has_operators(path):
        return (
            f"{path} has its operators written out in standard ones, which are several times "
            "slower than the native ones; export it without --inline to have those"
        )
    return (
        "dvmsr was built without its native operators and uses the portable ones, "
        f"which are several times slower; {cpu.REMEDY}"
    )


def _no_onnx(name: str, model: str, path: Path) -> DvmsrError:
    return UsageError(f"backend {name} runs ONNX files; make one with `dvmsr-export onnx {path}`")


def _load_checkpoint(path: Path, name: str, threads: int | None, trust_engine: bool) -> Network:
    from dvmsr.runtime.backends.pytorch.network import TorchNetwork

    return TorchNetwork(path, threads)


def _no_checkpoint(name: str, model: str, path: Path) -> DvmsrError:
    return UsageError(f"backend {name} runs checkpoints, not {path}; leave out the backend")


def _load_engine(path: Path, name: str, threads: int | None, trust_engine: bool) -> Network:
    from dvmsr.runtime.backends.trt.engine import EngineNetwork

    return EngineNetwork(path, trust_engine)


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
    half = " --fp16" if path.suffix.lower() in CHECKPOINTS else ""
    return UsageError(
        f"the backend {name} runs engines, not {model}; make one with "
        f"`dvmsr-export trt {model}{half}` and name its file in place of {model}"
    )


_ROWS = (
    Backend(
        *("native", (".onnx",), _load_onnx, _no_onnx),
        usable=lambda path: cpu.library_path() is not None and _has_operators(path),
    ),
    Backend(*("portable", (".onnx",), _load_onnx, _no_onnx), drawback=_why_portable),
    Backend("torch", CHECKPOINTS, _load_checkpoint, _no_checkpoint),
    Backend("cuda", (".onnx",), _load_onnx, _no_onnx, on_gpu=True),
    Backend("tensorrt", (ENGINE,), _load_engine, _no_engine, on_gpu=True),
)
"""`auto` takes the first that is usable and takes the file."""
BACKENDS = {backend.name: backend for backend in _ROWS}
NAMES = ("auto", *BACKENDS)


def choose(name: str, model: str, path: Path) -> Backend:
    """The backend of one of `NAMES`; warns if `auto` finds none without a drawback.

    Args:
        model: as the user names it.
        path: its file, of one of `registry.SUFFIXES`.

    Raises:
        UsageError: if there is no such backend, or it does not take the file.
        MissingComponentError: if it does not, and could not be used with any.
    """
    if name not in NAMES:
        raise UsageError(f"no backend {name}; there are {', '.join(NAMES)}")
    suffix = path.suffix.lower()
    if name == "auto":
        found = next(b for b in _ROWS if suffix in b.suffixes and b.usable(path))
        if found.drawback:
            warnings.warn(found.drawback(path), stacklevel=3)
        return found
    if suffix in BACKENDS[name].suffixes:
        return BACKENDS[name]
    if suffix == ENGINE:
        raise UsageError(f"{path} is a TensorRT engine; leave out the backend {name}")
    raise BACKENDS[name].misfit(name, model, path)


def needs_gpu(name: str, model: str) -> bool:
    """Whether the backend of one of `NAMES` computes on a GPU; the model need not be here."""
    suffix = Path(model).suffix.lower()
    takers = [BACKENDS[name]] if name in BACKENDS else [b for b in _ROWS if suffix in b.suffixes]
    return bool(takers) and takers[0].on_gpu
