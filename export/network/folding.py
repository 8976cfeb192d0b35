"""What can be computed when a graph is made, and is not larger then."""

import math

import onnx_ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass
from onnxscript import optimizer
from onnxscript.rewriter import onnx_fusions

_SMALL = 1024
"""Elements; a constant up to this size costs less than the nodes that would make it."""
_ARRANGING = ("Exp", "Neg", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Of any size, because weights are given so: transposed, or A as the logarithm of -A."""


def optimise(model: onnx_ir.Model) -> None:
    """Fold constants, merge nodes and drop what is not used, as PyTorch's exporter does. Unlike
    it, arrange weights of any size that are read nowhere else; and make no constant that is larger
    than what it is made of, such as one row read again and again."""
    CommonSubexpressionEliminationPass()(model)  # of weights, so that they are read once
    optimizer.optimize_ir(model, should_fold=_should_fold)
    onnx_fusions.fuse(model)


def _should_fold(node: onnx_ir.Node) -> bool | None:
    inputs = [value for value in node.inputs if value is not None]
    made = sum(map(_elements, node.outputs))
    if made > max(sum(map(_elements, inputs)), _SMALL):
        return False
    arranged = node.op_type in _ARRANGING and len(inputs[0].consumers()) == 1
    return True if arranged else None


def _elements(value: onnx_ir.Value) -> int:
    if value.const_value is not None:
        return value.const_value.size
    shape = value.shape
    return math.prod(shape.numpy()) if shape is not None and shape.is_static() else 0
