"""How a model and its backend are named together: `MODEL` or `MODEL:BACKEND`."""

from pathlib import Path

from dvmsr.runtime.upscaler import Upscaler
from dvmsr.utils.paths import exists


def split(spec: str) -> tuple[str, str]:
    """`net.onnx:portable` -> (`net.onnx`, `portable`); the backend is `auto` where none is named.

    A colon in the name of an existing file, or before a path, belongs to the name.
    """
    model, colon, backend = spec.rpartition(":")
    if not colon or not backend.isalnum() or exists(Path(spec)):
        return spec, "auto"
    return model, backend


def load(
    spec: str,
    threads: int | None = None,
    trust_engine: bool = False,
    time_limit: float | None = None,
) -> Upscaler:
    """The model on its backend.

    Args:
        threads, trust_engine: as of `Upscaler.from_file`.
        time_limit: as of `Network`.

    Raises:
        DvmsrError: as `Upscaler.from_file`.
    """
    model, backend = split(spec)
    upscaler = Upscaler.from_file(model, backend, threads, trust_engine=trust_engine)
    upscaler.network.time_limit = time_limit
    return upscaler
