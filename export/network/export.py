"""`export_network`: somebody's network in PyTorch -> a verified ONNX file."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dvmsr
from dvmsr.errors import UsageError
from dvmsr.export.onnx.export import DEFAULT_OPSET, PRECISIONS, count_nodes, require
from dvmsr.utils.atomic import check_target, replacing
from dvmsr.utils.console import notice
from dvmsr.utils.paths import check_encodable

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

    from dvmsr.export.network.inputs import Inputs
    from dvmsr.export.network.verify import Check

OPSETS = range(18, 25)
"""PyTorch's exporter writes no older ones."""
NEEDED = ("torch", "onnx", "onnxscript")


@dataclass(frozen=True)
class NetworkReport:
    """What was written, and how far it is from PyTorch."""

    path: str
    sha256: str
    bytes: int
    precision: str
    opset: int
    inputs: dict[str, list[int | str]]
    """Shape of each input; a name stands for a size that may change."""
    outputs: dict[str, list[int | str]]
    nodes: dict[str, int]
    """How many nodes of each operator, most frequent first."""
    checks: "tuple[Check, ...]"
    """Empty if not verified."""

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)


def export_network(
    module: "nn.Module",
    example_inputs: "Mapping[str, Tensor] | tuple[Tensor, ...]",
    path: str | os.PathLike[str],
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    opset: int = DEFAULT_OPSET,
    verify: bool = True,
    overwrite: bool = False,
    progress: Callable[[str], None] = notice,
    source: str = "",
    precision: str = "fp32",
    inline: bool = False,
) -> NetworkReport:
    """Write a PyTorch network as an ONNX file, and compare what ONNX Runtime makes of it with
    PyTorch at several sizes of each dynamic axis.

    Calls to mamba-ssm and causal-conv1d become dvmsr's operators if `dvmsr.compat.install()` ran
    before the network was imported. The file appears only when it is complete and has passed.

    Args:
        module: on the CPU, FP32; put into eval mode here.
        example_inputs: tensors by the names of forward's parameters, or in their order.
        path: the file to write, `.onnx`.
        dynamic: per input the axes whose sizes may change, with a name for each; axes of one name
            change together.
        opset: of the standard operators, 18 to 24.
        source: what the file says it came from.
        precision: `fp32`, or `fp16` for a graph typed in half precision (see
            `dvmsr.export.network.half`).
        inline: a file without functions, in standard operators alone (`dvmsr.export.onnx.inline`).

    Raises:
        UsageError: for a bad argument, or if the file exists and is not to be replaced.
        MissingComponentError: if torch, onnx or onnxscript is not installed.
        IncompatibleModelError: if the network cannot be traced, translated or verified; the
            message names the line or node and what to change.
        ParityError: if the outputs differ by more than 1e-5 (FP32) or 1e-2 (FP16) of the largest
            value.
        DvmsrError: if the file cannot be written.
    """
    require(*NEEDED)

    import torch

    from dvmsr.export.network.inputs import Inputs, check_names
    from dvmsr.networks import refuse_script
    from dvmsr.runtime.backends.pytorch.ports import parameters

    path = Path(path)
    check(path, opset, overwrite)
    if precision not in PRECISIONS:
        raise UsageError(f"the precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    refuse_script("the network", module)
    if isinstance(example_inputs, torch.Tensor):
        raise UsageError("example_inputs is a tensor; give a tuple of tensors, or them by name")
    if not isinstance(example_inputs, Mapping):
        names = list(parameters(module))
        if len(example_inputs) > len(names):
            raise UsageError(
                f"{len(example_inputs)} example inputs are too many: forward takes "
                f"{', '.join(names) or 'none by name'}"
            )
        example_inputs = dict(zip(names, example_inputs, strict=False))
    described = {name: dict(axes) for name, axes in (dynamic or {}).items()}
    for name, tensor in example_inputs.items():
        if not isinstance(tensor, torch.Tensor):
            raise UsageError(
                f"the example input {name} is of type {type(tensor).__name__}, no tensor"
            )
        if tensor.device.type != "cpu":
            raise UsageError(
                f"the example input {name} is on {tensor.device}; networks are exported on the "
                "CPU: call .cpu() on it and on the network"
            )
    inputs = Inputs({name: t.detach() for name, t in example_inputs.items()}, described)
    check_names(module, inputs)
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if weight.device.type != "cpu":
            raise UsageError(
                f"the network's {name} is on {weight.device}; networks are exported on the CPU: "
                "call .cpu() on it first"
            )
        if weight.is_floating_point() and weight.dtype != torch.float32:
            raise UsageError(
                f"the network's {name} is {weight.dtype}; networks are exported in FP32: call "
                ".float() on it first"
            )
    return _write(
        *(module.eval(), inputs, path, opset, verify, overwrite),
        *(progress, source, precision, inline),
    )


def _write(
    module: "nn.Module",
    inputs: "Inputs",
    path: Path,
    opset: int,
    verify: bool,
    overwrite: bool,
    progress: Callable[[str], None],
    source: str,
    precision: str,
    inline: bool,
) -> NetworkReport:
    import onnx

    from dvmsr.export.network.capture import capture
    from dvmsr.export.network.half import to_half
    from dvmsr.export.network.mixers import merge
    from dvmsr.export.network.rounding import Exact
    from dvmsr.export.network.transposes import keep_apart
    from dvmsr.export.network.verify import find_truths, named_outputs, outputs_of
    from dvmsr.export.network.verify import verify as verify_file
    from dvmsr.export.onnx import bodies
    from dvmsr.export.onnx.inline import without_functions

    truths = find_truths(module, inputs, progress, several=verify)
    names = list(named_outputs(module, inputs.tensors))
    annotated, decisions = capture(module, inputs, names, opset, progress)
    merge(annotated.graph)
    if precision == "fp16":
        to_half(annotated)
    keep_apart(annotated.graph, half=precision == "fp16")
    model = onnx.ModelProto()
    model.CopyFrom(annotated)
    if inline:
        model = without_functions(model)
    else:
        bodies.attach(model)
    _strip(model)
    _describe(model, inputs, source, precision)
    data = model.SerializeToString()
    checks: list[Check] = []
    exact = Exact(module, outputs_of)
    with replacing(path, overwrite) as temporary:
        progress(f"writing {path}: {precision}, opset {opset}, {len(data):,} bytes")
        backends = ("portable",) if inline else ("native", "portable")
        temporary.write_bytes(data)
        if verify:
            checks = verify_file(
                *(temporary, str(path), annotated, truths, decisions, exact, progress, precision),
                backends=backends,
            )
    return NetworkReport(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        precision=precision,
        opset=opset,
        inputs=_shapes(model.graph.input),
        outputs=_shapes(model.graph.output),
        nodes=count_nodes(model),
        checks=tuple(checks),
    )


def check(path: Path, opset: int, overwrite: bool) -> None:
    """Whether a file of that opset may be written there.

    Raises:
        UsageError: if not.
    """
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"{path} should end in .onnx; name the file to write")
    if opset not in OPSETS:
        raise UsageError(
            f"the opset must be from {OPSETS[0]} to {OPSETS[-1]}, not {opset}, for a network of "
            "others"
        )
    check_encodable(path)
    check_target(path, overwrite)


def _strip(model: "onnx.ModelProto") -> None:
    """Leave out what the exporter notes of the sources: their paths are this machine's."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    for item in (*model.graph.node, *values, *model.graph.initializer, model.graph, model):
        del item.metadata_props[:]
        if item is not model:
            item.doc_string = ""


def _describe(model: "onnx.ModelProto", inputs: "Inputs", source: str, precision: str) -> None:
    import onnx

    model.producer_name, model.producer_version = "dvmsr", dvmsr.__version__
    ranges = {
        name: [float(tensor.min()), float(tensor.max())] for name, tensor in inputs.tensors.items()
    }
    properties = {
        "dvmsr.network": source or "unknown",
        "dvmsr.precision": precision,
        "dvmsr.version": dvmsr.__version__,
        "dvmsr.dynamic": json.dumps(inputs.dynamic),
        "dvmsr.example": json.dumps({n: list(t.shape) for n, t in inputs.tensors.items()}),
        "dvmsr.example_range": json.dumps(ranges),
    }
    onnx.helper.set_model_props(model, properties)


def _shapes(values: Any) -> dict[str, list[int | str]]:
    return {
        value.name: [
            size.dim_value if size.HasField("dim_value") else size.dim_param or "?"
            for size in value.type.tensor_type.shape.dim
        ]
        for value in values
    }
