"""Any ONNX network: arrays in, arrays out, by name."""

import contextlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import UsageError
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.network import open_on, options_for, run_session
from dvmsr.runtime.backends.onnxrt.onnx_file import ForeignFileError, read_header
from dvmsr.utils.paths import check_input
from dvmsr.utils.threads import bounded

BACKENDS = ("native", "portable", "cuda")

_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int16)": "int16",
    "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(bool)": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Port:
    """An input or output."""

    shape: tuple[int | str, ...]
    """A name stands for a size that may change."""
    dtype: str
    """NumPy's name of its type."""

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


class TensorModel:
    """A network in an ONNX file, such as `dvmsr-export onnx package.module:factory` writes.

    May be called by several threads.

    Args:
        backend: `native` uses the operators of dvmsr's own library, `portable` their bodies in the
            file, `cuda` runs on a GPU.
        threads: how many ONNX Runtime uses; None leaves it to ONNX Runtime.

    Raises:
        UsageError: if there is no such file or backend.
        DvmsrError: if it cannot be read.
        IncompatibleModelError: if it is no ONNX file that ONNX Runtime runs.
        MissingComponentError: if the library or the GPU is missing or does not load.
    """

    def __init__(self, path: Path, backend: str, threads: int | None) -> None:
        check_input(path)
        if backend not in BACKENDS:
            raise UsageError(f"there is no backend {backend}; choose {', '.join(BACKENDS)}")
        with contextlib.suppress(ForeignFileError):
            read_header(path)  # refuses operators in their former form
        self.path, self.backend = path, backend
        options = options_for(backend, bounded(threads))
        self._session = open_on(backend, os.fspath(path), options, path)
        self.inputs = {value.name: _port(value) for value in self._session.get_inputs()}
        self.outputs = {value.name: _port(value) for value in self._session.get_outputs()}

    def __call__(self, **arrays: Any) -> dict[str, NDArray[Any]]:
        """The outputs by name. Arrays of another floating-point type are converted.

        Raises:
            UsageError: if an input is missing, unknown, or of another shape or kind.
            DvmsrError: if ONNX Runtime fails, for want of memory for instance.
        """
        for name in arrays:
            if name not in self.inputs:
                raise UsageError(
                    f"{self.path} has no input {name}; it takes {', '.join(self.inputs)}"
                )
        feeds = {name: self._feed(name, port, arrays) for name, port in self.inputs.items()}
        names = list(self.outputs)
        values = run_session(self._session, names, feeds, self.path, None)
        return dict(zip(names, values, strict=True))

    def _feed(self, name: str, port: Port, arrays: Mapping[str, Any]) -> NDArray[Any]:
        if name not in arrays:
            raise UsageError(f"{self.path} needs the input {name}: {port}")
        array = np.asarray(arrays[name])
        wanted = np.dtype(port.dtype)
        floats = array.dtype.kind == "f" and wanted.kind == "f"
        if array.dtype != wanted and not floats:
            raise UsageError(f"{name} is {array.dtype}, but {self.path} takes {port}")
        if len(array.shape) != len(port.shape) or any(
            isinstance(size, int) and size != given
            for size, given in zip(port.shape, array.shape, strict=True)
        ):
            raise UsageError(f"{name} has shape {array.shape}, but {self.path} takes {port}")
        return array.astype(wanted, copy=False)


def open_model(
    path: str | os.PathLike[str], backend: str | None = None, threads: int | None = None
) -> TensorModel:
    """Open an ONNX network for arrays; by default with the native operators where dvmsr has them,
    else, as a warning says, with the bodies in the file.

    Raises: as `TensorModel`.
    """
    if backend is None:
        backend = "native"
        if cpu.library_path() is None:
            backend = "portable"
            warnings.warn(
                "dvmsr was built without its native operators and uses the portable ones, which "
                f"are several times slower; {cpu.REMEDY}",
                stacklevel=2,
            )
    return TensorModel(Path(path), backend, threads)


def _port(value: Any) -> Port:
    shape = tuple(size if isinstance(size, (int, str)) else "?" for size in value.shape)
    return Port(shape, _TYPES.get(value.type, value.type))
