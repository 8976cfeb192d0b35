"""Whether an engine that is there already is the one that is asked for."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import dvmsr
from dvmsr.errors import DvmsrError, IncompatibleModelError, UsageError
from dvmsr.export.onnx.export import git_revision
from dvmsr.export.trt.request import Request
from dvmsr.runtime.backends.trt import engine_file, plugin_library
from dvmsr.runtime.backends.trt.engine_info import EngineInfo
from dvmsr.utils.paths import exists


def plugin_of(request: Request, output: Path) -> str | None:
    """SHA-256 of the plugin of the engine that is there and may be up to date."""
    if request.overwrite:
        return None
    with suppress(DvmsrError):
        plugin = engine_file.read_info(output).plugin
        return plugin.sha256 if plugin else None
    return None


def key(
    request: Request,
    path: Path,
    precision: str,
    capabilities: tuple[str, ...],
    tensorrt: str,
    library: plugin_library.PluginLibrary | None,
    device: str | None,
) -> str:
    """A hash of everything that decides what engine is built."""
    inputs = {
        "model": plugin_library.sha256(path),
        "dvmsr": [dvmsr.__version__, git_revision()],
        "precision": precision,
        "profile": [request.min, request.opt, request.max, request.batch],
        "target": request.target,
        "tensorrt": tensorrt,
        "gpu": device,
        "compute_capabilities": capabilities,
        "plugin": library.sha256 if library else None,
        "embed_plugin": request.embed_plugin,
        "version_compatible": request.version_compatible,
        "workspace_mib": request.workspace_mib,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def up_to_date(output: Path, key: str) -> EngineInfo | None:
    """The description of an engine that was built from the same; None if there is no engine.

    Raises:
        UsageError: if it was built from anything else, is damaged or has no description.
        DvmsrError: if it cannot be read.
    """
    if not exists(output):
        return None
    described = engine_file.info_path(output)
    try:
        info, _ = engine_file.read_engine(output)
    except IncompatibleModelError:
        what = f"it or {described.name} is damaged or of a newer dvmsr"
        if not exists(described):
            what = f"it has no {described.name} beside it"
        raise UsageError(
            f"{output} exists, but {what}; build it again with --overwrite or choose another name "
            "with -o"
        ) from None
    if info.key == key:
        return info
    raise UsageError(
        f"{output} exists and was built from other inputs; replace it with --overwrite or choose "
        "another name with -o"
    )
