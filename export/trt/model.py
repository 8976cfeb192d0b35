"""An ONNX model as TensorRT gets it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN

if TYPE_CHECKING:
    import onnx

LARGEST_TENSOR = 2**31 - 1
"""Values that a tensor of TensorRT's may have."""
LARGEST_MODEL = 2**31 - 1
"""Bytes that a model may have in one piece, weights included."""
_LAYOUT = "channel_major"


@dataclass(frozen=True)
class Model:
    """Without operator bodies, or with the bodies inlined; all its nodes have names."""

    data: bytes
    operators: int
    """How many of its nodes are dvmsr's operators, or were."""
    plugin_layers: int
    inputs: tuple[str, ...]
    """Names of those that something is computed of; it has no others."""
    metadata: dict[str, str]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def load(path: Path) -> onnx.ModelProto:
    """An ONNX file with its functions, its composed operators as their parts.

    Raises:
        IncompatibleModelError: if it cannot be read as one, lacks what an operator takes, or is too
            large with its weights.
    """
    import onnx

    from dvmsr.runtime.backends.onnxrt import composed
    from dvmsr.runtime.backends.onnxrt.nodes import check_nodes

    try:
        model = onnx.load(path)
    except Exception as error:  # protocol buffers' own
        raise IncompatibleModelError(f"{path} is damaged ({error}); export it again") from None
    if model.ByteSize() > LARGEST_MODEL:
        raise IncompatibleModelError(
            f"{path} has {model.ByteSize():,} bytes with its weights, and TensorRT is given at "
            f"most {LARGEST_MODEL:,}; export it in half precision, or in parts"
        )
    check_nodes(model.graph, path)
    composed.inline(model)
    return model


def for_tensorrt(model: onnx.ModelProto, plugin: bool) -> Model:
    """The model as TensorRT gets it; it is changed.

    Args:
        plugin: whether the plugin runs the operators, not their bodies.
    """
    import onnx.inliner

    from dvmsr.export.onnx import bodies
    from dvmsr.export.onnx.forms import write_out_layouts
    from dvmsr.export.trt.reshapes import take_zeros_for_sizes

    operators = sum(node.domain == DOMAIN for node in model.graph.node)
    bodies.detach(model)
    write_out_layouts(model.graph)
    take_zeros_for_sizes(model)
    if plugin:
        _say_layouts(model.graph)
    else:
        bodies.attach(model)
        model = onnx.inliner.inline_local_functions(model)
    inputs = _leave_out_inputs(model.graph)
    return Model(
        data=model.SerializeToString(deterministic=True),
        operators=operators,
        plugin_layers=operators if plugin else 0,
        inputs=inputs,
        metadata={prop.key: prop.value for prop in model.metadata_props},
    )


def _say_layouts(graph: onnx.GraphProto) -> None:
    """Of scans, which TensorRT's parser else warns about."""
    from onnx import helper

    for node in graph.node:
        told = {entry.name for entry in node.attribute}
        if node.domain == DOMAIN and node.op_type == "SelectiveScan" and _LAYOUT not in told:
            node.attribute.append(helper.make_attribute(_LAYOUT, 0))


def _leave_out_inputs(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Those that nothing reads, of which TensorRT warns, and weights, which old files list among
    them; the names of the others."""
    from dvmsr.export.onnx.inline import values_read

    kept = set(values_read(graph)) - {weight.name for weight in graph.initializer}
    for value in [value for value in graph.input if value.name not in kept]:
        graph.input.remove(value)
    return tuple(value.name for value in graph.input)
