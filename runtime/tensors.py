"""Any network by its name or file, for arrays."""

import os
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.runtime.backends import table
from dvmsr.runtime.backends.tensors import TensorNetwork
from dvmsr.utils.paths import is_import_path
from dvmsr.utils.threads import bounded
from dvmsr.weights import registry


def open_model(
    model: str | os.PathLike[str],
    backend: str | None = None,
    threads: int | None = None,
    trust_engine: bool = False,
) -> TensorNetwork:
    """Open a network of any kind for arrays.

    Args:
        model: an `.onnx` file, `package.module:factory` (a function without arguments that returns
            a `torch.nn.Module`, run on the CPU as the code that it is), a TensorRT `.engine`, or
            of DVMSR a checkpoint or the name of a bundled model.
        backend: `native` (ONNX Runtime with dvmsr's own operators), `portable` (ONNX Runtime
            alone), `cuda` (ONNX Runtime on a GPU), `torch` or `tensorrt`. None or `auto` takes
            what fits: for an `.onnx` file `native`, or `portable` where it has no such operators
            or, with a warning, dvmsr was built without them.
        threads: how many to compute with, at most one per processor; None leaves it to the
            backend.
        trust_engine: as of `Upscaler.from_file`.

    Raises:
        UsageError: if there is no such model or backend, or they do not fit.
        DvmsrError: if it cannot be read, or the factory fails.
        IncompatibleModelError: if it is no network that the backend runs.
        MissingComponentError: if the backend, its GPU or a package is missing.
    """
    name, backend = os.fspath(model), backend or "auto"
    path = find_path(name, backend)
    chosen = table.choose(backend, name, path)
    return chosen.open(table.Request(name, path, chosen.name, bounded(threads), trust_engine))


def find_path(model: str, backend: str = "auto") -> Path:
    """The model's file, or the import path of a factory in place of it.

    Raises:
        UsageError: if there is no such model.
        MissingComponentError: if the bundled file is not installed.
    """
    if is_import_path(model):
        return Path(model)
    if backend == "torch" and model in registry.CHECKPOINT_NAMES:
        return registry.find_checkpoint(model)
    try:
        return registry.find_model(model)
    except UsageError as error:
        if Path(model).suffix.lower() in registry.SUFFIXES:
            raise
        raise UsageError(f"{error}, or a package.module:factory") from None
