"""Reads by one list of indices, `x[:, order, :]`, as one node.

PyTorch's exporter moves the axis to the front, gathers there, and moves it back: three nodes, two
of which copy the whole tensor. PlainMamba reads so eight times in a block.
"""

import torch
from torch.fx import Node

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8)


def replace_indexing(program: torch.export.ExportedProgram) -> int:
    """Replace each `aten.index` by one list of indices; returns how many went."""
    graph = program.graph
    replaced = 0
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.index.Tensor):
        found = _one_list(node)
        if found is None:
            continue
        axis, indices = found
        with graph.inserting_before(node):
            read = graph.call_function(
                torch.ops.aten.index_select.default, (node.args[0], axis, indices)
            )
        read.meta = dict(node.meta)
        node.replace_all_uses_with(read)
        graph.erase_node(node)
        replaced += 1
    if replaced:
        program.graph_module.recompile()
    return replaced


def _one_list(node: Node) -> tuple[int, Node] | None:
    """The axis and the indices, if it reads along one axis by a list of whole numbers."""
    lists = node.args[1]
    assert isinstance(lists, (list, tuple))
    given = [(axis, one) for axis, one in enumerate(lists) if isinstance(one, Node)]
    if len(given) != 1:
        return None
    axis, indices = given[0]
    value = indices.meta["val"]
    return (axis, indices) if value.dim() == 1 and value.dtype in _INTEGERS else None
