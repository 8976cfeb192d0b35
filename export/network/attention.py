"""Attention as PyTorch's exporter and ONNX Runtime take it: of four axes, masks of full size."""

import torch
from torch import Tensor
from torch.fx import Graph, Node

from dvmsr.export.network.calls import call

_ATEN = torch.ops.aten
_ATTENTION = _ATEN.scaled_dot_product_attention.default
_AXES = 4
"""Batch, heads, tokens and channels."""
_ONE_NODE = 23
"""From this opset on attention is one node, whose masks have a row for each query and a column for
each key in ONNX Runtime; PyTorch's may have one for all."""


def arrange_attention(program: torch.export.ExportedProgram, opset: int) -> None:
    """Arrange each `scaled_dot_product_attention` that needs it.

    To fewer axes come new ones of size 1 in front, as in PyTorch itself; of more the first become
    one, where queries, keys and values are of one shape and no mask has these axes.
    """
    graph = program.graph
    for node in graph.find_nodes(op="call_function", target=_ATTENTION):
        names = [argument.name for argument in _ATTENTION._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        tensors = {name: one for name, one in given.items() if _is_tensor(one)}
        with graph.inserting_before(node):
            new = {name: _with_four_axes(one, node, tensors) for name, one in tensors.items()}
            if opset >= _ONE_NODE and "attn_mask" in new:
                new["attn_mask"] = _full(graph, new["attn_mask"], new["query"], new["key"])
            if new == tensors:
                continue
            four = graph.call_function(_ATTENTION, (), given | new)
            four.meta = {**node.meta, "val": _shaped(node.meta["val"])}
            result = four
            for _ in range(_AXES - _axes(node)):
                result = call(graph, _ATEN.squeeze.dim, result, 0)
            if _axes(node) > _AXES:
                result = call(graph, _ATEN.reshape_as.default, result, tensors["query"])
        node.replace_all_uses_with(result)
        graph.erase_node(node)
    program.graph_module.recompile()


def _is_tensor(argument: object) -> bool:
    return isinstance(argument, Node) and isinstance(argument.meta["val"], Tensor)


def _axes(node: Node) -> int:
    return int(node.meta["val"].ndim)


def _shaped(value: Tensor) -> Tensor:
    """With four axes."""
    if value.ndim > _AXES:
        return value.flatten(0, value.ndim - _AXES)
    return value[(None,) * (_AXES - value.ndim)]


def _with_four_axes(tensor: Node, attention: Node, tensors: dict[str, Node]) -> Node:
    """One that an attention takes, which gives what has as many axes as that."""
    if _axes(attention) < _AXES:
        for _ in range(_AXES - _axes(tensor)):
            tensor = call(tensor.graph, _ATEN.unsqueeze.default, tensor, 0)
    elif _AXES < _axes(attention) == _axes(tensor) and _have_one_shape(tensors):
        last = _axes(tensor) - _AXES
        tensor = call(tensor.graph, _ATEN.flatten.using_ints, tensor, 0, last)
    return tensor


def _have_one_shape(tensors: dict[str, Node]) -> bool:
    """Queries, keys and values, but for the number of tokens; and no mask has the first axes."""
    query, *others = (tensors[name].meta["val"] for name in ("query", "key", "value"))
    mask = tensors.get("attn_mask")
    return (mask is None or _axes(mask) < _AXES) and all(
        str([*one.shape[:-2], one.shape[-1]]) == str([*query.shape[:-2], query.shape[-1]])
        for one in others
    )


def _full(graph: Graph, mask: Node, query: Node, key: Node) -> Node:
    """A mask with a row for each query and a column for each key."""
    rows, columns = (tensor.meta["val"].shape[-2] for tensor in (query, key))
    value = mask.meta["val"]
    if str(list(value.shape[-2:])) == str([rows, columns]):
        return mask
    others = [-1] * (value.ndim - 2)
    sizes = [call(graph, _ATEN.sym_size.int, tensor, -2) for tensor in (query, key)]
    full = graph.call_function(_ATEN.expand.default, (mask, [*others, *sizes]))
    full.meta["val"] = value.expand([*others, rows, columns])
    return full
