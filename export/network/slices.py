"""Assignments to the slices of a tensor, `y[:, i] = part`, as concatenations.

Traced one by one they become ScatterND nodes, each of which copies the whole tensor: 30 % of
VMamba's time.
"""

from dataclasses import dataclass

import torch
from torch.fx import Graph, Node

_ATEN = torch.ops.aten
_END = 2**63 - 1
"""How PyTorch writes an end that is open."""


@dataclass(frozen=True)
class _Part:
    """What is known to lie from `start` to `stop` along an axis; a `single` lacks the axis."""

    start: int
    stop: int
    node: Node
    single: bool


@dataclass(frozen=True)
class _Place:
    """Where an operator reads or writes a tensor; counted from 0."""

    axis: int
    start: int
    stop: int
    single: bool


Known = tuple[int, int, tuple[_Part, ...]]
"""The axis, its size, and the parts of a tensor that assignments wrote, in order."""


def join_assignments(program: torch.export.ExportedProgram) -> int:
    """Replace tensors that assignments wrote whole by a concatenation of what they wrote, and reads
    of what assignments wrote by that.

    Returns how many assignments went.
    """
    graph = program.graph
    _simplify(graph)
    known: dict[Node, Known] = {}
    before = sum(_writes(node) is not None for node in graph.nodes)
    for node in list(graph.nodes):
        if place := _writes(node):
            tensor, part = node.args[:2]
            assert isinstance(part, Node)
            assert isinstance(tensor, Node)
            found = _written(known.get(tensor), node, place, part)
            if found is None:
                continue
            known[node] = found
            axis, size, parts = found
            if _covers(parts, 0, size):
                with graph.inserting_before(node.next):
                    whole = _joined(graph, parts, axis, node)
                node.replace_all_uses_with(
                    whole, delete_user_cb=lambda user, w=whole: user is not w
                )
                known[whole] = found
        elif place := _reads(node):
            tensor = node.args[0]
            if not isinstance(tensor, Node) or tensor not in known:
                continue
            axis, _, parts = known[tensor]
            if axis != place.axis:
                continue
            inside = [p for p in parts if p.start < place.stop and place.start < p.stop]
            if _covers(inside, place.start, place.stop):
                _read_parts(graph, node, inside, axis, place.single)
    graph.eliminate_dead_code()
    after = sum(_writes(node) is not None for node in graph.nodes)
    if after < before:
        program.graph_module.recompile()
    return before - after


def _simplify(graph: Graph) -> None:
    """Take away reads, writes and copies of whole tensors, which PyTorch makes of `y[:, i]`."""
    for node in list(graph.nodes):
        if node.target is _ATEN.slice.Tensor and _is_whole(node, node.args[1:]):
            node.replace_all_uses_with(node.args[0])
        elif (node.target is _ATEN.slice_scatter.default and _is_whole(node, node.args[2:])) or (
            node.target is _ATEN.copy.default and _alike(node, node.args[1])
        ):
            node.replace_all_uses_with(node.args[1])
    graph.eliminate_dead_code()


def _is_whole(node: Node, arguments: tuple[object, ...]) -> bool:
    _, start, stop, step = _filled(arguments)
    return start in (0, None) and stop in (None, _END) and step == 1


def _filled(arguments: tuple[object, ...]) -> list[object]:
    """Axis, start, stop and step, by default those of the whole axis 0."""
    defaults: list[object] = [0, None, None, 1]
    return [*arguments, *defaults[len(arguments) :]]


def _alike(node: Node, other: object) -> bool:
    """Whether two tensors have one shape and type; sizes are compared as they are written."""
    if not isinstance(other, Node):
        return False
    one, two = node.meta["val"], other.meta["val"]
    return str(tuple(one.shape)) == str(tuple(two.shape)) and one.dtype == two.dtype


def _writes(node: Node) -> _Place | None:
    """Where a node puts its second argument into a copy of its first."""
    if node.target is _ATEN.select_scatter.default:
        return _select(node, node.args[2:4])
    if node.target is _ATEN.slice_scatter.default:
        return _slice(node, node.args[2:])
    return None


def _reads(node: Node) -> _Place | None:
    if node.target is _ATEN.select.int:
        return _select(node, node.args[1:3])
    if node.target is _ATEN.slice.Tensor:
        return _slice(node, node.args[1:])
    return None


def _select(node: Node, arguments: tuple[object, ...]) -> _Place | None:
    shape = _shape(node.args[0])
    axis, index = arguments
    if not isinstance(axis, int) or not isinstance(index, int):
        return None
    axis %= len(shape)
    size = shape[axis]
    if not isinstance(size, int):
        return None
    index %= size
    return _Place(axis, index, index + 1, single=True)


def _slice(node: Node, arguments: tuple[object, ...]) -> _Place | None:
    shape = _shape(node.args[0])
    axis, start, stop, step = _filled(arguments)
    if not isinstance(axis, int) or step != 1:
        return None
    axis %= len(shape)
    size = shape[axis]
    start, stop = start or 0, _END if stop is None else stop
    if not (isinstance(size, int) and isinstance(start, int) and isinstance(stop, int)):
        return None
    first, end = (min(max(b + size if b < 0 else b, 0), size) for b in (start, stop))
    return _Place(axis, first, end, single=False)


def _shape(node: object) -> tuple[object, ...]:
    assert isinstance(node, Node)
    return tuple(node.meta["val"].shape)


def _written(before: Known | None, node: Node, place: _Place, part: Node) -> Known | None:
    """What is known of a tensor after an assignment; None if that is nothing of use."""
    size = _shape(node)[place.axis]
    if not isinstance(size, int) or place.start >= place.stop:
        return None
    kept = before[2] if before and before[0] == place.axis else ()
    if any(p.start < place.stop and place.start < p.stop for p in kept):
        kept = tuple(p for p in kept if p.stop <= place.start or place.stop <= p.start)
    new = _Part(place.start, place.stop, part, place.single)
    return place.axis, size, tuple(sorted((*kept, new), key=lambda p: p.start))


def _covers(parts: "list[_Part] | tuple[_Part, ...]", start: int, stop: int) -> bool:
    """Whether they lie one behind the other from start to stop exactly."""
    at = start
    for part in parts:
        if part.start != at:
            return False
        at = part.stop
    return at == stop and bool(parts)


def _read_parts(graph: Graph, node: Node, parts: list[_Part], axis: int, single: bool) -> None:
    with graph.inserting_before(node):
        if single:
            (part,) = parts
            found = part.node if part.single else None
        else:
            found = _joined(graph, tuple(parts), axis, node)
    if found is not None:
        node.replace_all_uses_with(found)


def _joined(graph: Graph, parts: tuple[_Part, ...], axis: int, like: Node) -> Node:
    """A concatenation with the value of `like`."""
    pieces = []
    for part in parts:
        piece = part.node
        if part.single:
            piece = graph.call_function(_ATEN.unsqueeze.default, (piece, axis))
            piece.meta["val"] = _ATEN.unsqueeze.default(part.node.meta["val"], axis)
        pieces.append(piece)
    whole = graph.call_function(_ATEN.cat.default, (pieces, axis))
    whole.meta = {key: like.meta[key] for key in ("val", "stack_trace") if key in like.meta}
    return whole
