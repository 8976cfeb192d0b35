"""Assignments to the slices of a tensor, `y[:, i] = part`, as one concatenation.

Traced one by one they become ScatterND nodes, each of which copies the whole tensor: 30 % of
VMamba's time.
"""

from dataclasses import dataclass

import torch
from torch.fx import Graph, Node

_SELECT = torch.ops.aten.select_scatter.default


@dataclass(frozen=True)
class _Assignment:
    """`tensor.select(axis, index)[:] = part`, of `size` indices; counted from 0."""

    node: Node
    tensor: Node
    part: Node
    axis: int
    index: int
    size: int


def join_assignments(program: torch.export.ExportedProgram) -> int:
    """Replace chains of assignments that together write every part of a tensor along one axis.

    Returns how many assignments went.
    """
    graph = program.graph
    found = {node: one for node in graph.nodes if (one := _assignment(node))}
    joined = 0
    for node in list(found):
        if any(user in found and found[user].tensor is node for user in node.users):
            continue  # another follows
        chain = [found[node]]
        while chain[0].tensor in found:
            chain.insert(0, found[chain[0].tensor])
        if _complete(chain):
            _replace(graph, chain)
            joined += len(chain)
    if joined:
        graph.eliminate_dead_code()
        program.graph_module.recompile()
    return joined


def _assignment(node: Node) -> _Assignment | None:
    if node.target is not _SELECT:
        return None
    tensor, part, axis, index = node.args
    shape = node.meta["val"].shape
    if not (isinstance(axis, int) and isinstance(index, int) and isinstance(part, Node)):
        return None
    size = shape[axis]
    if not isinstance(tensor, Node) or not isinstance(size, int):
        return None
    return _Assignment(node, tensor, part, axis % len(shape), index % size, size)


def _complete(chain: list[_Assignment]) -> bool:
    """Whether they write each index of one axis once, and nobody sees the tensor in between."""
    unseen = all(len(one.node.users) == 1 for one in chain[:-1])
    indices = sorted(one.index for one in chain)
    return (
        unseen and len({one.axis for one in chain}) == 1 and indices == list(range(chain[0].size))
    )


def _replace(graph: Graph, chain: list[_Assignment]) -> None:
    last = chain[-1]
    parts = [one.part for one in sorted(chain, key=lambda one: one.index)]
    with graph.inserting_before(last.node):
        stacked = graph.call_function(torch.ops.aten.stack.default, (parts, last.axis))
    stacked.meta = dict(last.node.meta)
    last.node.replace_all_uses_with(stacked)
