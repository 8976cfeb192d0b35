"""Nodes that are put into a traced graph."""

import torch
from torch.fx import Graph, Node


def call(graph: Graph, operator: torch._ops.OpOverload, *arguments: object) -> Node:
    """A node with what PyTorch knows of its value: shape and type."""
    node = graph.call_function(operator, arguments)  # type: ignore[arg-type]
    known = [one.meta["val"] if isinstance(one, Node) else one for one in arguments]
    node.meta["val"] = operator(*known)
    return node
