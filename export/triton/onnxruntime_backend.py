"""A model for Triton's ONNX Runtime backend: the exported file, the library of its operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dvmsr.errors import MissingComponentError, UsageError
from dvmsr.export.triton.config import instances
from dvmsr.export.triton.layout import VERSION, Layout, Request, check_file
from dvmsr.export.triton.tensors import Shapes, Signature
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.onnx_file import read_facts
from dvmsr.runtime.tensors import open_model

_USUAL_SIDE = 64
"""Of pictures whose size a file does not tell."""
_STREAMING = "dvmsr.streaming"


def takes(path: Path) -> bool:
    """Whether ONNX Runtime alone can serve a file: one of ours that streams needs what carries its
    state from strip to strip."""
    return path.suffix.lower() == ".onnx" and _STREAMING not in read_facts(path).metadata


def layout(name: str, path: Path, request: Request) -> Layout:
    """The model `name` of an ONNX file of any network, which is loaded once to see that it is one.

    Raises:
        UsageError: if it is another file, or streams, or `request` does not fit it.
        IncompatibleModelError: if ONNX Runtime does not load it.
        MissingComponentError: if it has dvmsr's operators and their library is not installed.
    """
    if path.suffix.lower() != ".onnx":
        raise UsageError(
            f"the ONNX Runtime backend takes .onnx files, not {path}; make one with `dvmsr-export "
            "onnx`, or choose --backend python"
        )
    if not takes(path):
        raise UsageError(
            f"{path} computes strips, which Triton's ONNX Runtime backend does not put together; "
            "export it without --streaming, or choose --backend python"
        )
    check_file(path)
    native = read_facts(path).has_operators
    library = cpu.library_path() if native else None
    if native and library is None:
        raise MissingComponentError(f"dvmsr's operators are not built here; {cpu.REMEDY}")
    network = open_model(path, "native" if native else "portable")
    signature = Signature(
        str(path), network.inputs, network.outputs, _usual(network.inputs, network.examples)
    )
    max_batch = signature.max_batch(request.max_batch)
    config: dict[str, Any] = {
        "name": name,
        "backend": "onnxruntime",
        **signature.fields(max_batch),
        # The operators in the library are for processors.
        "instance_group": instances(request.instances, "CPU" if native else "AUTO"),
    }
    if max_batch > 1:
        config["dynamic_batching"] = {}
    files: dict[str, Path | bytes] = {f"{VERSION}/model.onnx": path}
    if library is not None:
        files[library.name] = library
        place = request.mounted_at / name / library.name
        config["model_operations"] = {"op_library_filename": str(place)}
    return Layout(name, config, files)


def _usual(inputs: Any, examples: Any) -> Shapes:
    """The shapes of the example that the file was made with, or of a small picture; nothing where
    neither fits all inputs."""
    if inputs and examples.keys() >= inputs.keys():
        return {name: examples[name].shape for name in inputs}
    if list(inputs) != ["input"]:
        return {}
    shape: tuple[int | str, ...] = inputs["input"].shape or ()
    if len(shape) != 4 or shape[1] != 3:
        return {}
    usual = (1, 3, _USUAL_SIDE, _USUAL_SIDE)
    return {
        "input": tuple(
            given if isinstance(given, int) else size
            for given, size in zip(shape, usual, strict=True)
        )
    }
