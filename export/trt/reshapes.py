"""What a Reshape makes of a size of 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_COMPUTED = {"Add", "Div", "Gather", "Max", "Min", "Mod", "Mul", "Neg", "Shape", "Slice", "Sub"}
"""Operators whose results are sizes, and 0 only where a tensor is empty."""
_PASSED_ON = {"Cast", "Concat", "Identity", "Squeeze", "Unsqueeze"}
_OLDEST = 14
"""Opset that lets a Reshape take 0 for a size."""


def take_zeros_for_sizes(model: onnx.ModelProto) -> None:
    """Let 0 mean an empty axis, which inputs of an engine never have, where sizes are computed.

    By default it means the size before, which TensorRT provides for at run time with more memory
    wherever it cannot exclude a 0.
    """
    from onnx import helper

    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    if opset < _OLDEST:
        return
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {weight.name: weight for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.domain or node.input[1] in weights:
            continue
        if not _may_copy(node.input[1], makers, weights):
            kept = [entry for entry in node.attribute if entry.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("allowzero", 1)])


def _may_copy(
    name: str, makers: dict[str, onnx.NodeProto], weights: dict[str, onnx.TensorProto]
) -> bool:
    """Whether a 0 among these sizes may mean the size before: one that is written there does."""
    from onnx import numpy_helper

    if name in weights:
        return bool((numpy_helper.to_array(weights[name]) == 0).any())
    node = makers.get(name)
    if node is None or node.domain:
        return True
    if node.op_type == "Constant":
        values = [entry.t for entry in node.attribute if entry.name == "value"]
        return not values or bool((numpy_helper.to_array(values[0]) == 0).any())
    if node.op_type in _PASSED_ON:
        given = node.input if node.op_type == "Concat" else node.input[:1]
        return any(_may_copy(part, makers, weights) for part in given)
    return node.op_type not in _COMPUTED
