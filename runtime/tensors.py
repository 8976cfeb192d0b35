"""Any network by its name or file, for arrays."""

import os
import warnings
from pathlib import Path

from dvmsr.kernels import cpu
from dvmsr.runtime.backends.tensors import TensorNetwork


def open_model(
    path: str | os.PathLike[str], backend: str | None = None, threads: int | None = None
) -> TensorNetwork:
    """Open an ONNX network for arrays; by default with the native operators where dvmsr has them,
    else, as a warning says, with the bodies in the file.

    Raises: as `OnnxTensors`.
    """
    from dvmsr.runtime.backends.onnxrt.tensors import OnnxTensors

    if backend is None:
        backend = "native"
        if cpu.library_path() is None:
            backend = "portable"
            warnings.warn(
                "dvmsr was built without its native operators and uses the portable ones, which "
                f"are several times slower; {cpu.REMEDY}",
                stacklevel=2,
            )
    return OnnxTensors(Path(path), backend, threads)
