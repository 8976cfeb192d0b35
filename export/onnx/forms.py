"""The forms of the operators' nodes: with the gate or without, and so on.

A function body cannot ask whether an input is there, so it serves one form of an operator. ONNX
tells several bodies of a name apart by `overload` from IR 10 on, but ONNX Runtime 1.20 and
TensorRT's parser look at the name alone: hence one body per operator and file. In the rare file
that mixes forms, all nodes take the one that the others contain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.onnxrt.composed import COMPOSED, MIXER, given
from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN

Body = onnx.GraphProto | onnx.FunctionProto
SCAN, CONV = "SelectiveScan", "CausalConv1d"
_NAMES = {0: "u", 1: "delta", 3: "B", 4: "C", 8: "z"}
"""The scan's inputs of each token, by position."""
_ROWS = [0, 3, 1, 2]
"""(B, G, N, L) -> (B, L, G, N)"""


@dataclass(frozen=True)
class Form:
    """What a file's bodies of the scan and the causal convolution depend on."""

    gate: bool = True
    delta_softplus: bool = True
    channel_major: bool = False
    activation: bool = True
    widths: tuple[int, ...] = (4,)
    """Every K of its convolutions."""


def form_of(graph: onnx.GraphProto, composed: Sequence[onnx.FunctionProto] = ()) -> Form:
    """The form of a graph's nodes and of those in the bodies of its composed operators, once they
    are unified.

    Raises:
        IncompatibleModelError: if the graph does not tell how many taps a convolution has.
    """
    scans, convs = _nodes([graph, *composed], SCAN), _nodes([graph, *composed], CONV)
    known = shapes(graph)
    widths = set()
    taps = [(node, node.input[1]) for node in _nodes([graph], CONV)]
    taps += [(node, given(node)["conv1d_weight"]) for node in _nodes([graph], MIXER)]
    for node, weight in taps:
        shape = known.get(weight, ())
        if len(shape) != 2 or not shape[1]:
            raise IncompatibleModelError(
                f"{node.name or node.op_type}: the model does not tell the number of taps of its "
                "weight; make the weight a constant"
            )
        widths.add(shape[1])
    return Form(
        gate=all(gated(node) for node in scans),
        delta_softplus=all(applies(node) for node in scans),
        channel_major=any(channel_major(node) for node in scans),
        activation=all(applies(node) for node in convs),
        widths=tuple(sorted(widths)) or (4,),
    )


def unify(bodies: Sequence[Body]) -> None:
    """Bring the nodes of scan and causal convolution to one form each, in a graph and in the bodies
    of its composed operators: where some lack the gate, softplus, SiLU or channel-major tensors,
    those that have it get it from standard operators beside them."""
    for op, has, write_out in (
        (SCAN, channel_major, _write_out_layout),
        (SCAN, gated, _write_out_gate),
        (SCAN, applies, _write_out_softplus),
        (CONV, applies, _write_out_silu),
    ):
        _unify(bodies, op, has, write_out)
    for node in _nodes(bodies, SCAN):
        if not channel_major(node):
            _leave_off(node, "channel_major")


def unify_composed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The same for the composed operators' norm and projections; returns a node of each operator
    that is there."""
    for argument, write_out in (
        ("in_proj_x", _write_out_in_proj),  # with the norm before it
        ("norm_weight", _write_out_norm),
        ("out_proj", _write_out_out_proj),
    ):
        _unify([graph], MIXER, _takes(argument), write_out)
    return [nodes[0] for op in COMPOSED if (nodes := _nodes([graph], op))]


def _unify(
    bodies: Sequence[Body],
    op: str,
    has: Callable[[onnx.NodeProto], bool],
    write_out: Callable[[onnx.NodeProto], list[onnx.NodeProto]],
) -> None:
    """Write out what some of the operator's nodes have and others have not."""
    if {has(node) for node in _nodes(bodies, op)} == {True, False}:
        for body in bodies:
            nodes = [
                part
                for node in body.node
                for part in (write_out(node) if _is(node, op) and has(node) else [node])
            ]
            _put(nodes, body)


def write_out_layouts(graph: onnx.GraphProto) -> None:
    """Make all scans token-major, as what runs on a GPU reads them, with transposes beside those
    that were channel-major."""
    _put(
        [
            part
            for node in graph.node
            for part in (_write_out_layout(node) if channel_major(node) else [node])
        ],
        graph,
    )


def _put(nodes: list[onnx.NodeProto], body: Body) -> None:
    """In place of the body's own, some of which they are; there are never fewer."""
    if len(nodes) > len(body.node):
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del body.node[:]
        body.node.extend(copies)


def _write_out_layout(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    y = node.output[0]
    before = []
    for i, order in ((0, [0, 2, 1]), (1, [0, 2, 1]), (3, _ROWS), (4, _ROWS), (8, [0, 2, 1])):
        if i < len(node.input) and node.input[i]:
            given, node.input[i] = node.input[i], f"{y}/{_NAMES[i]}_tokens"
            before.append(helper.make_node("Transpose", [given], [node.input[i]], perm=order))
    node.output[0] = f"{y}/tokens"
    _leave_off(node, "channel_major")
    return [*before, node, helper.make_node("Transpose", [node.output[0]], [y], perm=[0, 2, 1])]


def _write_out_gate(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    y, z = node.output[0], node.input[8]
    del node.input[8]
    node.output[0] = f"{y}/ungated"
    return [
        node,
        helper.make_node("Sigmoid", [z], [f"{y}/sigmoid"]),
        helper.make_node("Mul", [z, f"{y}/sigmoid"], [f"{y}/gate"]),
        helper.make_node("Mul", [node.output[0], f"{y}/gate"], [y]),
    ]


def _write_out_softplus(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    y, delta, bias = node.output[0], node.input[1], node.input[6]
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    node.input[1], node.input[6] = f"{y}/step", f"{y}/no_bias"
    _set(node, "delta_softplus")
    return [
        helper.make_node("Cast", [delta], [f"{y}/delta"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", [f"{y}/delta", bias], [f"{y}/biased"]),
        helper.make_node("Softplus", [f"{y}/biased"], [f"{y}/step_float"]),
        helper.make_node("CastLike", [f"{y}/step_float", delta], [f"{y}/step"]),
        helper.make_node("Shape", [bias], [f"{y}/channels"]),
        helper.make_node("ConstantOfShape", [f"{y}/channels"], [f"{y}/no_bias"], value=zero),
        node,
    ]


def _write_out_silu(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    y = node.output[0]
    node.output[0] = f"{y}/sum"
    _set(node, "activation")
    return [
        node,
        helper.make_node("Sigmoid", [node.output[0]], [f"{y}/sigmoid"]),
        helper.make_node("Mul", [node.output[0], f"{y}/sigmoid"], [y]),
    ]


def _write_out_norm(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    y, has = node.output[0], given(node)
    inputs = [has["x"], has["norm_weight"], has["norm_bias"]]
    norm = helper.make_node("LayerNormalization", inputs, [f"{y}/norm"], axis=-1, stash_type=1)
    norm.attribute.extend(entry for entry in node.attribute if entry.name == "epsilon")
    _replace(node, x=norm.output[0], norm_weight="", norm_bias="")
    return [norm, node]


def _write_out_in_proj(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    *before, _ = _write_out_norm(node) if "norm_weight" in given(node) else [node]
    y, has = node.output[0], given(node)
    for part in ("in_proj_x", "in_proj_z"):
        before.append(helper.make_node("MatMul", [has["x"], has[part]], [f"{y}/{part}"]))
    rows = [name for made in before[-2:] for name in made.output]
    before.append(helper.make_node("Concat", rows, [f"{y}/rows"], axis=-1))
    _replace(node, x=f"{y}/rows", in_proj_x="", in_proj_z="")
    return [*before, node]


def _write_out_out_proj(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    y, weight = node.output[0], given(node)["out_proj"]
    node.output[0] = f"{y}/scanned"
    _replace(node, out_proj="")
    return [node, helper.make_node("MatMul", [node.output[0], weight], [y])]


def _replace(node: onnx.NodeProto, **inputs: str) -> None:
    """What a composed node takes, by argument."""
    for argument, name in inputs.items():
        node.input[COMPOSED[node.op_type].arguments.index(argument)] = name


def _set(node: onnx.NodeProto, attribute: str) -> None:
    """To 0."""
    _leave_off(node, attribute)
    node.attribute.append(helper.make_attribute(attribute, 0))


def _leave_off(node: onnx.NodeProto, attribute: str) -> None:
    kept = [entry for entry in node.attribute if entry.name != attribute]
    del node.attribute[:]
    node.attribute.extend(kept)


def _is(node: onnx.NodeProto, op: str) -> bool:
    return bool(node.domain == DOMAIN and node.op_type == op)


def _nodes(bodies: Sequence[Body], op: str) -> list[onnx.NodeProto]:
    return [node for body in bodies for node in body.node if _is(node, op)]


def _takes(argument: str) -> Callable[[onnx.NodeProto], bool]:
    """Whether a composed node does."""
    return lambda node: argument in given(node)


def gated(node: onnx.NodeProto) -> bool:
    return len(node.input) == 9 and bool(node.input[8])


def channel_major(node: onnx.NodeProto) -> bool:
    names = [entry.name for entry in node.attribute if entry.i] if _is(node, SCAN) else []
    return "channel_major" in names


def applies(node: onnx.NodeProto) -> bool:
    """Whether the node's attribute delta_softplus or activation, by default 1, is set."""
    names = ("delta_softplus", "activation")
    return all(entry.i for entry in node.attribute if entry.name in names)


def shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes that a graph tells of its values; 0 for a size that is not constant."""
    told = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return told | {weight.name: tuple(weight.dims) for weight in graph.initializer}
