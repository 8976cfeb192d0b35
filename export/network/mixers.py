"""Mamba between its outer projections, as mamba-ssm's `mamba_inner_fn` computes it, as one node
`MambaMixer`, with the projection back where that follows.

Taken are mixers of one group, with gate, softplus and SiLU, whose x and z are the halves of one
tensor, whose weights are constants, and of which nothing else reads what is between. What is in
branches and loops stays as it is.
"""

from collections import defaultdict
from collections.abc import Iterator

import onnx
from onnx import helper, numpy_helper

from dvmsr.export.onnx.forms import CONV, SCAN, applies, channel_major, gated, shapes
from dvmsr.runtime.backends.onnxrt.composed import COMPOSED, MIXER
from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES, DOMAIN


class _Otherwise(Exception):
    """These nodes are something else."""


def merge(graph: onnx.GraphProto) -> None:
    """Put one node in the place of each mixer's."""
    merging = _Merging(graph)
    for scan in merging.nodes:
        if scan.domain == DOMAIN and scan.op_type == SCAN:
            try:
                merging.merge(scan)
            except _Otherwise:
                continue
    if merging.mixers:
        merging.apply()


class _Merging:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph, self.nodes = graph, list(graph.node)
        self.maker = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        self.readers = defaultdict[str, list[int]](list)
        for i, node in enumerate(self.nodes):
            for name in _read(node):
                self.readers[name].append(i)
        self.given_out = {value.name for value in graph.output}
        self.weights = {weight.name: weight for weight in graph.initializer}
        self.shapes = shapes(graph)
        self.mixers: dict[int, onnx.NodeProto] = {}
        """In place of the scan that is there."""
        self.merged: set[int] = set()

    def merge(self, scan: onnx.NodeProto) -> None:
        """
        Raises:
            _Otherwise: if what is around the scan is no mixer.
        """
        _require(gated(scan) and applies(scan) and not channel_major(scan))
        inside = {self.maker[scan.output[0]]}
        u, delta, A, B, C, D, delta_bias, h0, z = scan.input
        conv = self._made(inside, u, CONV, DOMAIN)
        _require(applies(conv))
        x, conv1d_weight, conv1d_bias, tail = conv.input
        inner, state = self._matrix(A)
        _require(self._matrix(conv1d_weight)[0] == inner)
        _require(all(map(self._is_constant, (conv1d_bias, D, delta_bias))))
        tokens = self._part(inside, x, 0, inner)
        _require(self._part(inside, z, inner, 2 * inner) == tokens)
        dt_proj, x_proj, ranges = self._projections_of(u, inside, delta, B, C, inner, state)
        y, out_proj = self._outer(inside, scan.output[0])
        new_tail, h_last = conv.output[1], scan.output[1]
        self._require_inside(inside, {y, new_tail, h_last})
        _require(not self.readers[new_tail])  # for they may come before the scan
        given = {name: self._columns(x_proj, *columns) for name, columns in ranges.items()}
        given |= {"x": tokens, "conv1d_weight": conv1d_weight, "conv1d_bias": conv1d_bias}
        given |= {"dt_proj": dt_proj, "A": A, "D": D, "delta_bias": delta_bias}
        given |= {"out_proj": out_proj, "tail": tail, "h0": h0}
        inputs = [given.get(argument, "") for argument in COMPOSED[MIXER].arguments]
        while not inputs[-1]:
            inputs.pop()
        made = helper.make_node(
            MIXER, inputs, [y, new_tail, h_last], scan.name, domain=DOMAIN, **ATTRIBUTES
        )
        made.metadata_props.extend(scan.metadata_props)
        self.mixers[self.maker[scan.output[0]]] = made
        self.merged |= inside

    def apply(self) -> None:
        """Write the nodes that there are now, and leave out what none reads any more."""
        kept = [
            self.mixers.get(i, node)
            for i, node in enumerate(self.nodes)
            if i in self.mixers or i not in self.merged
        ]
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del self.graph.node[:]
        self.graph.node.extend(kept)
        read = {name for node in kept for name in _read(node)} | self.given_out
        made = read | {name for node in kept for name in node.output}
        for told, names in ((self.graph.initializer, read), (self.graph.value_info, made)):
            for item in [item for item in told if item.name not in names]:
                told.remove(item)

    def _made(self, inside: set[int], name: str, op: str, domain: str = "") -> onnx.NodeProto:
        """The node of that operator that makes a value, which is part of the mixer then."""
        _require(name in self.maker)
        node = self.nodes[self.maker[name]]
        _require((node.op_type, node.domain) == (op, domain))
        inside.add(self.maker[name])
        return node

    def _matrix(self, name: str) -> tuple[int, int]:
        """The sizes of a weight of two axes."""
        _require(name in self.weights and len(self.weights[name].dims) == 2)
        first, second = self.weights[name].dims
        return first, second

    def _is_constant(self, name: str) -> bool:
        """Whether a value is a weight or made of weights alone, as zeros for a missing bias are."""
        if name in self.weights or name not in self.maker:
            return name in self.weights
        return all(map(self._is_constant, _read(self.nodes[self.maker[name]])))

    def _numbers(self, name: str) -> list[int]:
        _require(name in self.weights)
        return [int(value) for value in numpy_helper.to_array(self.weights[name]).ravel()]

    def _projections_of(
        self, u: str, inside: set[int], delta: str, B: str, C: str, inner: int, state: int
    ) -> tuple[str, str, dict[str, tuple[int, int]]]:
        """The weights of what makes delta, B and C of u: the last one of delta, the one of all, and
        whose columns are whose."""
        dt, dt_proj = self._product(inside, delta)
        rank, _ = self._matrix(dt_proj)
        parts = {
            "x_proj_dt": (dt, 0, rank),
            "x_proj_B": (self._one_group(inside, B), rank, rank + state),
            "x_proj_C": (self._one_group(inside, C), rank + state, rank + 2 * state),
        }
        projected, *others = {self._part(inside, *part) for part in parts.values()}
        _require(not others)
        of, x_proj = self._product(inside, projected)
        _require(of == u and self._matrix(x_proj) == (inner, rank + 2 * state))
        ranges = {name: (start, stop) for name, (_, start, stop) in parts.items()}
        return dt_proj, x_proj, ranges

    def _product(self, inside: set[int], name: str) -> tuple[str, str]:
        """What a weight is multiplied with to make a value, and the weight."""
        factor, weight = self._made(inside, name, "MatMul").input
        self._matrix(weight)
        return factor, weight

    def _one_group(self, inside: set[int], name: str) -> str:
        """(B, L, N) that became (B, L, 1, N)."""
        rows, axes = self._made(inside, name, "Unsqueeze").input
        _require(self._numbers(axes) in ([2], [-2]))
        return rows

    def _part(self, inside: set[int], name: str, start: int, stop: int) -> str:
        """The value (B, L, .) whose last axis was cut to that range to make this one."""
        _require(name in self.maker)
        node = self.nodes[self.maker[name]]
        whole = node.input[0] if node.input else ""
        width = self._width(whole)
        if node.op_type == "Split":
            sizes = self._split(node, width)
            port = list(node.output).index(name)
            cut = sum(sizes[:port]), sum(sizes[: port + 1])
            axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
        else:
            _require(node.op_type == "Slice" and len(node.input) >= 4)
            numbers = [self._numbers(one) for one in node.input[1:]]
            _require(all(len(one) == 1 for one in numbers) and numbers[3:] in ([], [[1]]))
            (first,), (last,), (axis,), *_ = numbers
            cut = slice(first, last).indices(width)[:2]
        _require(axis in (2, -1) and cut == (start, stop))
        inside.add(self.maker[name])
        return whole

    def _split(self, node: onnx.NodeProto, width: int) -> list[int]:
        if len(node.input) > 1:
            return self._numbers(node.input[1])
        count = len(node.output)
        _require(width % count == 0)
        return [width // count] * count

    def _width(self, name: str) -> int:
        """Of the last of three axes."""
        shape = self.shapes.get(name, ())
        _require(len(shape) == 3 and shape[2] > 0)
        return shape[2]

    def _outer(self, inside: set[int], y: str) -> tuple[str, str]:
        """The output of the projection that follows, if one does, and its weight or ""."""
        readers = self.readers[y]
        if y not in self.given_out and len(readers) == 1:
            node = self.nodes[readers[0]]
            if node.op_type == "MatMul" and node.input[0] == y and node.input[1] in self.weights:
                self._matrix(node.input[1])
                inside.add(readers[0])
                return node.output[0], node.input[1]
        return y, ""

    def _require_inside(self, inside: set[int], outputs: set[str]) -> None:
        """That nothing else reads what the mixer's parts make, but for its outputs."""
        for i in inside:
            for name in {*self.nodes[i].output} - outputs:
                _require(name not in self.given_out and inside.issuperset(self.readers[name]))

    def _columns(self, weight: str, start: int, stop: int) -> str:
        name = f"{weight}/columns_{start}_to_{stop}"
        if name not in self.weights:
            columns = numpy_helper.to_array(self.weights[weight])[:, start:stop]
            self.weights[name] = numpy_helper.from_array(columns.copy(), name)
            self.graph.initializer.append(self.weights[name])
        return name


def _require(condition: bool) -> None:
    if not condition:
        raise _Otherwise


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node takes, and those that its loops and branches do."""
    yield from node.input
    for entry in node.attribute:
        for graph in (entry.g, *entry.graphs):
            for part in graph.node:
                yield from _read(part)
            yield from (value.name for value in graph.output)
