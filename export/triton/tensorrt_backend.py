"""A model for Triton's TensorRT backend: an engine, and the plugin that the server loads for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dvmsr.errors import IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.export.triton.config import instances
from dvmsr.export.triton.layout import VERSION, Layout, Request
from dvmsr.export.triton.tensors import of_pictures
from dvmsr.runtime.backends.trt import plugin_library
from dvmsr.runtime.backends.trt.engine_file import read_engine
from dvmsr.runtime.backends.trt.engine_info import EngineInfo, PluginInfo
from dvmsr.weights.registry import ENGINE

_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def layout(name: str, path: Path, request: Request) -> Layout:
    """The model `name` of an engine of TensorRT.

    Raises:
        UsageError: if it is no engine, or `request` does not fit it.
        DvmsrError: if it cannot be read.
        IncompatibleModelError: if it is an engine of TensorRT for RTX, or damaged.
        MissingComponentError: if its plugin is not on this machine.
    """
    if path.suffix.lower() != ENGINE:
        raise UsageError(
            f"the TensorRT backend takes engines, not {path}; build one with `dvmsr-export trt "
            f"{path}` and name its file"
        )
    info, plan = read_engine(path)
    if info.target != "gpu":
        raise IncompatibleModelError(
            f"{path} is an engine of TensorRT for RTX, which Triton does not load; build one of "
            "TensorRT with `dvmsr-export trt --target gpu`, or choose --backend python"
        )
    config: dict[str, Any] = {
        "name": name,
        "backend": "tensorrt",
        **_signature(path, info, request.max_batch),
        "instance_group": instances(request.instances, "GPU"),
    }
    files: dict[str, Path | bytes] = {f"{VERSION}/model.plan": plan}
    settings = {"version-compatible": "true"} if info.version_compatible else {}
    if info.plugin is not None and not info.plugin.embedded:
        library = _plugin(info.plugin, info.compute_capabilities[0])
        files[library.name] = library
        settings["plugins"] = str(request.mounted_at / name / library.name)
    return Layout(name, config, files, settings)


def _signature(path: Path, info: EngineInfo, asked: int | None) -> dict[str, Any]:
    """Sizes, inputs and outputs. Of a network of others the description does not tell the outputs:
    the server takes these from the engine, unless it is told not to."""
    low, most = (min(shape[0] for shape in shapes if shape) for shapes in _bounds(info))
    if asked is not None and not low <= asked <= most:
        raise UsageError(
            f"{path} takes batches of {low} to {most}, not {asked}; choose --max-batch among them, "
            "or build it with another --batch"
        )
    if not info.is_dvmsr:
        return {} if asked is None else {"max_batch_size": asked, "dynamic_batching": {}}
    if low > 1:
        raise IncompatibleModelError(
            f"{path} takes no single picture, which Triton may send; build it with --batch 1,"
            f"{info.profile.opt[0]},{most}"
        )
    batch, *size = info.profile.opt
    max_batch = asked or most
    signature = of_pictures(str(path), _TYPES[info.precision], (size[0], size[1]), batch)
    fields = signature.fields(max_batch)
    if max_batch > 1:
        fields["dynamic_batching"] = {}
    return fields


def _bounds(info: EngineInfo) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The smallest and the largest shapes of all inputs."""
    profiles = info.profiles.values()
    return [profile.min for profile in profiles], [profile.max for profile in profiles]


def _plugin(built_with: PluginInfo, compute_capability: str) -> Path:
    """The library that registers itself when the server loads it."""
    found = plugin_library.require(built_with.tensorrt_major, compute_capability, built_with.sha256)
    if found.self_registering is None:
        raise MissingComponentError(
            f"there is no self-registering library beside {found.pure}; compile both with "
            "`dvmsr-export plugin-path --build`"
        )
    return Path(found.self_registering)
