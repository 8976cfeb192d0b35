"""Models for Triton's Python backend: one that takes and gives pictures' files, one for tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.export.triton.config import Symbol, instances, parameters
from dvmsr.export.triton.layout import VERSION, Layout, Request, check_file
from dvmsr.export.triton.tensors import Signature, of_pictures
from dvmsr.export.triton.warm_up import PICTURE, picture
from dvmsr.runtime.backends.onnxrt.onnx_file import is_foreign, read_facts
from dvmsr.runtime.backends.table import needs_gpu
from dvmsr.runtime.backends.trt.engine_file import info_path, read_engine
from dvmsr.runtime.tensors import open_model
from dvmsr.runtime.upscaler import Upscaler
from dvmsr.weights.registry import ENGINE

MAX_PIXELS = 16_000_000
"""Of a picture, unless config.pbtxt is changed."""
_USUAL = (64, 64)
_BYTES = {"data_type": Symbol("TYPE_STRING"), "dims": [1]}
_OPTIONAL = {"optional": True}


def layouts(name: str, path: Path, peak: int | None, request: Request) -> list[Layout]:
    """The models of one file: `name` for tensors and, where it enlarges pictures, `name-pictures`.
    What computes on this machine is loaded once to see that it does.

    Args:
        peak: the brightest value that a network of others takes and gives, if it was named.

    Raises:
        UsageError: if `request` does not fit it.
        IncompatibleModelError: if it is none that dvmsr runs.
        MissingComponentError: if what runs it is not installed.
    """
    check_file(path)
    if path.suffix.lower() == ENGINE:
        return _of_engine(name, path, request)
    foreign = path.suffix.lower() == ".onnx" and is_foreign(read_facts(path).metadata)
    if not foreign:
        Upscaler.from_file(path)
        return [_images(name, path, request), _pictures(name, path, path.name, request)]
    found = [_tensors(name, path, request)]
    try:
        upscaler = Upscaler.from_file(path if peak is None else f"{path}@{peak}")
    except IncompatibleModelError:  # it is for other tensors
        return found
    file = f"{path.name}@{upscaler.network.peak}"
    return [*found, _pictures(name, path, file, request)]


def _of_engine(name: str, path: Path, request: Request) -> list[Layout]:
    info, _ = read_engine(path)
    if info.host_code:
        raise UsageError(
            f"{path} carries {info.host_code}, which the Python backend does not run; build it "
            "without --embed-plugin and --version-compatible"
        )
    if not info.is_dvmsr:
        raise UsageError(
            f"the description of {path} does not tell its outputs, which the Python backend has to "
            "know; choose --backend tensorrt"
        )
    return [_images(name, path, request), _pictures(name, path, path.name, request)]


def _images(name: str, path: Path, request: Request) -> Layout:
    signature = of_pictures(str(path), "float32", _USUAL)
    return _layout(
        name,
        path,
        request,
        {"serves": "images", "model": path.name, "max_pixels": MAX_PIXELS},
        signature.fields(signature.max_batch(request.max_batch)),
    )


def _pictures(name: str, path: Path, file: str, request: Request) -> Layout:
    fields = {
        "max_batch_size": 0,
        "input": [
            {"name": "picture", **_BYTES},
            {"name": "format", **_BYTES, **_OPTIONAL},
            {"name": "quality", "data_type": Symbol("TYPE_INT32"), "dims": [1], **_OPTIONAL},
        ],
        "output": [
            {"name": "picture", **_BYTES},
            {"name": "warnings", **_BYTES, "dims": [-1]},
        ],
        "model_warmup": {
            "name": "usual",
            "batch_size": 1,  # of a model without batches, too, or it is left out
            "inputs": {"key": "picture", "value": {**_BYTES, "input_data_file": PICTURE}},
        },
    }
    served = {"serves": "pictures", "model": file, "max_pixels": MAX_PIXELS}
    found = _layout(f"{name}-pictures", path, request, served, fields)
    return replace(found, files={**found.files, f"warmup/{PICTURE}": picture(*_USUAL)})


def _tensors(name: str, path: Path, request: Request) -> Layout:
    network = open_model(path)
    inputs = {  # of bfloat16, which NumPy lacks, the runtime takes FP32
        key: replace(port, dtype=port.held) for key, port in network.inputs.items()
    }
    usual = {
        key: example.shape for key, example in network.examples.items() if key in network.inputs
    }
    complete = usual.keys() == inputs.keys()
    signature = Signature(str(path), inputs, network.outputs, usual if complete else {})
    fields = signature.fields(signature.max_batch(request.max_batch))
    return _layout(name, path, request, {"serves": "tensors", "model": path.name}, fields)


def _layout(
    name: str, path: Path, request: Request, served: Mapping[str, Any], fields: Mapping[str, Any]
) -> Layout:
    kind = "GPU" if needs_gpu("auto", path.name) else "CPU"
    config = {
        "name": name,
        "backend": "python",
        **fields,
        "instance_group": instances(request.instances, kind),
        "parameters": parameters(runtime_backend="auto", **served),
    }
    code = files("dvmsr.export.triton").joinpath("model.py").read_bytes()
    copied: dict[str, Path | bytes] = {f"{VERSION}/model.py": code, f"{VERSION}/{path.name}": path}
    if path.suffix.lower() == ENGINE:
        copied[f"{VERSION}/{info_path(path).name}"] = info_path(path)
    return Layout(name, config, copied)
