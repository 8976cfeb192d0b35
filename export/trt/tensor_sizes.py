"""How large the tensors of a graph become, as far as it tells."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def largest(graph: onnx.GraphProto, axes: Mapping[str, int]) -> tuple[str, int]:
    """Name and number of values of the largest tensor whose shape the graph tells.

    Args:
        axes: sizes by the names that stand for them; shapes may hold formulas of these.
    """
    found = {"": 0}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = [
            size.dim_value if size.HasField("dim_value") else _size(size.dim_param, axes)
            for size in value.type.tensor_type.shape.dim
        ]
        known = [size for size in sizes if size is not None]
        if len(known) == len(sizes):
            found[value.name] = math.prod(known)
    return max(found.items(), key=lambda item: item[1])


def _size(formula: str, axes: Mapping[str, int]) -> int | None:
    """What a formula such as `2*height` gives; None where it has anything unknown."""
    try:
        return _computed(ast.parse(formula, mode="eval").body, axes)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError):
        return None


def _computed(node: ast.expr, axes: Mapping[str, int]) -> int:
    if isinstance(node, ast.Name):
        return axes[node.id]
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_computed(node.left, axes), _computed(node.right, axes))
    raise ValueError(ast.dump(node))
