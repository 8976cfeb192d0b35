"""Networks as a model repository: which backend serves each, and under which name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvmsr.errors import UsageError
from dvmsr.export.triton import (
    onnxruntime_backend,
    python_backend,
    repository,
    tensorrt_backend,
)
from dvmsr.export.triton.layout import Layout, Request
from dvmsr.weights import registry

BACKENDS = ("auto", "tensorrt", "onnxruntime", "python")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Report:
    """What was written."""

    repository: Path
    models: tuple[Layout, ...]

    @property
    def server_options(self) -> list[str]:
        """What the server has to be started with: once for each setting, as engines of one server
        are of one TensorRT and share its plugin."""
        settings = {
            (model.config["backend"], name): value
            for model in self.models
            for name, value in model.settings.items()
        }
        return [
            f"--backend-config={backend},{name}={value}"
            for (backend, name), value in settings.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "repository": str(self.repository),
            "models": [model.to_dict() for model in self.models],
            "server_options": self.server_options,
        }


def export_triton(
    models: Sequence[str],
    folder: Path,
    request: Request,
    backend: str = "auto",
    name: str | None = None,
    overwrite: bool = False,
) -> Report:
    """Write models into a repository.

    Args:
        models: names and files, as `Upscaler.from_file` and `open_model` take them.
        folder: the repository, which may hold other models.
        backend: one of `BACKENDS`. `auto` takes `tensorrt` for an engine, `onnxruntime` for an ONNX
            file of whole inputs, else `python`.
        name: of the only model; None for the file's.

    Raises:
        UsageError: if there is no such model or backend, they do not fit each other, or something
            else is in the way.
        DvmsrError: if a file cannot be read or written.
        IncompatibleModelError: if a file is no model that the backend serves.
        MissingComponentError: if an operators' library or plugin is missing.
    """
    if backend not in BACKENDS:
        raise UsageError(f"--backend must be one of {', '.join(BACKENDS)}, not {backend}")
    if name is not None and len(models) > 1:
        raise UsageError("--name is for one model; leave it out, or export them one by one")
    layouts = [
        layout
        for model in models
        for layout in _layouts(model, name or _stem(model), backend, request)
    ]
    repository.write(layouts, folder, overwrite)
    return Report(folder, tuple(layouts))


def _stem(model: str) -> str:
    return Path(registry.split_range(model)[0]).stem


def _layouts(model: str, name: str, backend: str, request: Request) -> list[Layout]:
    file, peak = registry.split_range(model)
    chosen = _backend_for(file) if backend == "auto" else backend
    path = registry.find_model(file, streaming=chosen == "python")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a model, which has letters, digits, dots, hyphens and "
            "underscores; choose another with --name"
        )
    if chosen == "python":
        return python_backend.layouts(name, path, peak, request)
    layout = tensorrt_backend.layout if chosen == "tensorrt" else onnxruntime_backend.layout
    return [layout(name, path, request)]


def _backend_for(file: str) -> str:
    if file in registry.MODELS:
        return "python"
    path = registry.find_model(file)
    if path.suffix.lower() == registry.ENGINE:
        return "tensorrt"
    return "onnxruntime" if onnxruntime_backend.takes(path) else "python"
