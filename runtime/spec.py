"""How a model and its backend are named together: `MODEL` or `MODEL:BACKEND`."""

from pathlib import Path

from dvmsr.errors import DvmsrError
from dvmsr.runtime.backends.onnxrt import onnx_file
from dvmsr.runtime.backends.table import NAMES
from dvmsr.runtime.backends.tensors import TensorNetwork
from dvmsr.runtime.backends.trt import engine_file
from dvmsr.runtime.tensors import find_path, open_model
from dvmsr.runtime.upscaler import Upscaler
from dvmsr.utils.paths import exists, is_import_path
from dvmsr.weights.registry import ENGINE, MODELS, SUFFIXES


def split(spec: str) -> tuple[str, str]:
    """`net.onnx:portable` -> (`net.onnx`, `portable`); the backend is `auto` where none is named.

    A colon in the name of an existing file, before a path or in `package.module:factory` belongs
    to the name. What has the name of a backend is one.
    """
    model, colon, backend = spec.rpartition(":")
    if not colon or not backend.isalnum() or exists(Path(spec)):
        return spec, "auto"
    is_file = model in MODELS or Path(model).suffix.lower() in SUFFIXES
    if is_import_path(spec) and backend not in NAMES and not is_file:
        return spec, "auto"
    return model, backend


def is_foreign(spec: str) -> bool:
    """Whether the model is another network than DVMSR, or a factory of any.

    Raises:
        DvmsrError: if there is no such model.
    """
    model, backend = split(spec)
    if is_import_path(model):
        return True
    path = find_path(model, backend)
    try:
        if path.suffix.lower() == ".onnx":
            return onnx_file.is_foreign(onnx_file.read_facts(path).metadata)
        if path.suffix.lower() == ENGINE:
            return onnx_file.is_foreign(engine_file.read_info(path).model)
    except DvmsrError:  # which loading it tells
        pass
    return False


def load(
    spec: str,
    threads: int | None = None,
    trust_engine: bool = False,
    time_limit: float | None = None,
) -> Upscaler:
    """The model on its backend, for pictures.

    Args:
        threads, trust_engine: as of `Upscaler.from_file`.
        time_limit: as of `Network`.

    Raises:
        DvmsrError: as `Upscaler.from_file`.
    """
    model, backend = split(spec)
    return Upscaler.from_file(
        model, backend, threads, trust_engine=trust_engine, time_limit=time_limit
    )


def open_tensors(
    spec: str,
    threads: int | None = None,
    trust_engine: bool = False,
    time_limit: float | None = None,
) -> TensorNetwork:
    """The model on its backend, for arrays; arguments as of `load`.

    Raises:
        DvmsrError: as `open_model`.
    """
    model, backend = split(spec)
    network = open_model(model, backend, threads, trust_engine)
    network.time_limit = time_limit
    return network
