"""Attention without axes for batch or heads, which PyTorch's exporter only knows with both."""

import torch
from torch.fx import Node
from torch.fx.node import Argument

from dvmsr.export.network.calls import call

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_AXES = 4
"""Batch, heads, tokens and channels."""


def complete_attention(program: torch.export.ExportedProgram) -> int:
    """Give each `scaled_dot_product_attention` of fewer axes four, with new ones of size 1 in
    front; returns how many it were."""
    graph = program.graph
    completed = 0
    for node in graph.find_nodes(op="call_function", target=_ATTENTION):
        missing = _AXES - node.meta["val"].ndim
        if missing <= 0:
            continue
        with graph.inserting_before(node):
            arguments = tuple(_completed(one) for one in node.args)
            named = {name: _completed(one) for name, one in node.kwargs.items()}
            result = graph.call_function(_ATTENTION, arguments, named)
            result.meta = {**node.meta, "val": node.meta["val"][(None,) * missing]}
            for _ in range(missing):
                result = call(graph, torch.ops.aten.squeeze.dim, result, 0)
        node.replace_all_uses_with(result)
        graph.erase_node(node)
        completed += 1
    if completed:
        program.graph_module.recompile()
    return completed


def _completed(argument: Argument) -> Argument:
    """A tensor with four axes; what is none as it is."""
    if not isinstance(argument, Node) or not isinstance(argument.meta["val"], torch.Tensor):
        return argument
    for _ in range(_AXES - argument.meta["val"].ndim):
        argument = call(argument.graph, torch.ops.aten.unsqueeze.default, argument, 0)
    return argument
