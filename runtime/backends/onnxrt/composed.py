"""The operators that are made of others: what a node of one is in standard operators and dvmsr's
other two.

A runtime with a kernel for such an operator computes it at once. TensorRT and GPUs are given its
parts, and so is who looks for the layer where two networks drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES, DOMAIN
from dvmsr.strips import CACHED_ROWS

MIXER, CONV, STRIP_CONV, STRIP_ADD = "MambaMixer", "Conv3x3", "StripConv3x3", "StripAdd"
Given = Mapping[str, str]
"""What a node takes, by argument; without those that are absent."""
_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Composed:
    """An operator that is made of others."""

    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    parts: Callable[[Parts, Given], None]
    attributes: Mapping[str, int] = field(default_factory=dict)
    """What parts of it take from the node under the same names, and their types."""
    shapes: Callable[[Given, Mapping[str, list[Any]], list[Any]], dict[str, list[Any]]] = (
        lambda has, sizes, y: {}
    )
    """Of the parts' values that ONNX does not infer, from the sizes of the weights and of y."""


class Parts:
    """Collects the parts of one node. They and the values between them are named
    `<the node's first output>/<part>`; the node's outputs keep their names."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.node, self.nodes = node, list[onnx.NodeProto]()

    def name(self, part: str) -> str:
        return f"{self.node.output[0]}/{part}"

    def add(
        self, op: str, part: str, *inputs: str, outputs: tuple[str, ...] = (), **attributes: Any
    ) -> str:
        """A standard operator, or with several outputs one of dvmsr's; returns the first output."""
        name = self.name(part)
        more = {"domain": DOMAIN, **ATTRIBUTES} if len(outputs) > 1 else {}
        made = helper.make_node(op, inputs, outputs or [name], name, **attributes, **more)
        self.nodes.append(made)
        return str(made.output[0])

    def integers(self, part: str, value: int) -> str:
        tensor = numpy_helper.from_array(np.array([value], np.int64))
        return self.add("Constant", part, value=tensor)

    def hand_on(self, attribute: str) -> None:
        """Give the latest part the node's attribute, which may be a function's."""
        self.nodes[-1].attribute.extend(a for a in self.node.attribute if a.name == attribute)


def given(node: onnx.NodeProto) -> dict[str, str]:
    """What a composed node takes, by argument; the absent ones are left out."""
    pairs = zip(COMPOSED[node.op_type].arguments, node.input, strict=False)
    return {argument: name for argument, name in pairs if name}


def example(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node in the same form whose inputs, outputs and attributes are those of a function."""
    operator, has = COMPOSED[node.op_type], given(node)
    inputs = [argument if argument in has else "" for argument in operator.arguments]
    made = helper.make_node(node.op_type, inputs, operator.outputs, domain=DOMAIN)
    for name, kind in operator.attributes.items():
        made.attribute.add(name=name, ref_attr_name=name, type=kind)
    return made


def parts(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """What a composed node is made of; see `Parts` for the names."""
    collected = Parts(node)
    COMPOSED[node.op_type].parts(collected, given(node))
    return collected.nodes


def inline(model: onnx.ModelProto, operators: Iterable[str] = ()) -> None:
    """Put the parts of every composed node in its place, and tell the shapes of the values between
    them that ONNX does not infer.

    Args:
        operators: of these alone; by default of all.

    Bodies of the other operators stay as they are: they have to be attached again unless all scans
    are gated, token-major and with softplus, and all convolutions with SiLU.
    """
    graph, wanted = model.graph, {*operators} or COMPOSED.keys()
    values = {value.name: value for value in (*graph.value_info, *graph.output)}
    sizes = {weight.name: list[Any](weight.dims) for weight in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.domain == DOMAIN and node.op_type in wanted:
            graph.value_info.extend(_told(node, values.get(node.output[0]), sizes))
            nodes += parts(node)
        else:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)
    for body in [body for body in model.functions if body.domain == DOMAIN]:
        if body.name in wanted:
            model.functions.remove(body)


def _told(
    node: onnx.NodeProto, y: onnx.ValueInfoProto | None, weights: Mapping[str, list[Any]]
) -> Iterator[onnx.ValueInfoProto]:
    if y is None or not y.type.tensor_type.HasField("shape"):
        return
    kind = y.type.tensor_type.elem_type
    of_y = [
        size.dim_value if size.HasField("dim_value") else size.dim_param or None
        for size in y.type.tensor_type.shape.dim
    ]
    taken = given(node)
    sizes = {argument: weights[name] for argument, name in taken.items() if name in weights}
    for part, shape in COMPOSED[node.op_type].shapes(taken, sizes, of_y).items():
        yield helper.make_tensor_value_info(f"{node.output[0]}/{part}", kind, shape)


def _mixer(to: Parts, has: Given) -> None:
    """LayerNorm, the projections to x and z, convolution, scan and the projection back."""
    y, new_tail, h_last = to.node.output
    tokens = has["x"]  # (B, L, C)
    if "norm_weight" in has:
        norm = has["norm_weight"], has["norm_bias"]
        tokens = to.add("LayerNormalization", "norm", tokens, *norm, axis=-1, stash_type=1)
        to.hand_on("epsilon")
    if "in_proj_x" in has:
        x = to.add("MatMul", "in_proj_x", tokens, has["in_proj_x"])  # (B, L, D)
        z = to.add("MatMul", "in_proj_z", tokens, has["in_proj_z"])
    else:
        x, z = _halves(to, tokens, has["conv1d_bias"])
    conv1d = x, has["conv1d_weight"], has["conv1d_bias"], has["tail"]
    outputs = to.name("conv1d"), new_tail
    u = to.add("CausalConv1d", "conv1d", *conv1d, outputs=outputs, activation=1)
    dt = to.add("MatMul", "x_proj_dt", u, has["x_proj_dt"])  # (B, L, R)
    delta = to.add("MatMul", "dt_proj", dt, has["dt_proj"])  # before bias and softplus
    rows = [to.add("MatMul", f"x_proj_{n}", u, has[f"x_proj_{n}"]) for n in "BC"]  # (B, L, N)
    group = to.integers("group_axis", 2)
    B, C = (
        to.add("Unsqueeze", name, of, group) for name, of in zip("BC", rows, strict=True)
    )  # (B, L, 1, N)
    scan = u, delta, has["A"], B, C, has["D"], has["delta_bias"], has["h0"], z
    projects = "out_proj" in has
    outputs = to.name("scan") if projects else y, h_last
    scanned = to.add("SelectiveScan", "scan", *scan, outputs=outputs, delta_softplus=1)
    if projects:
        to.add("MatMul", "out_proj", scanned, has["out_proj"], outputs=(y,))


def _halves(to: Parts, tokens: str, of_inner: str) -> tuple[str, str]:
    """(B, L, 2 D) -> the first D values of each token and the others."""
    zero, last, axis = (
        to.integers(f"halves/{name}", value)
        for name, value in (("first", 0), ("last", _LAST), ("axis", -1))
    )
    middle = to.add("Shape", "halves/middle", of_inner)
    x = to.add("Slice", "x", tokens, zero, middle, axis)
    return x, to.add("Slice", "z", tokens, middle, last, axis)


def _mixer_shapes(has: Given, sizes: Mapping[str, list[Any]], y: list[Any]) -> dict[str, list[Any]]:
    if len(sizes.get("A", ())) != 2 or len(y) != 3:
        return {}
    inner, state = sizes["A"]
    of_u, of_state = [*y[:2], inner], [*y[:2], 1, state]
    scanned = {"scan": of_u} if "out_proj" in has else {}
    return {"conv1d": of_u, "B": of_state, "C": of_state, **scanned}


def _conv3x3(to: Parts, has: Given) -> None:
    """The standard convolution, of planes."""
    planes = _planes(to, has["x"], has)
    to.hand_on("pads")
    _pixels(to, planes)


def _planes(to: Parts, pixels: str, has: Given, **pads: Any) -> str:
    planes = to.add("Transpose", "from_pixels", pixels, perm=[0, 3, 1, 2])  # (B, C, H, W)
    weights = has["weight"], has["bias"]
    planes = to.add("Conv", "planes", planes, *weights, kernel_shape=[3, 3], **pads)
    to.nodes[-1].name = to.node.output[0]  # it is what the node does
    return planes


def _pixels(to: Parts, planes: str) -> None:
    to.add("Transpose", "to_pixels", planes, outputs=(to.node.output[0],), perm=[0, 2, 3, 1])


def _strip_conv3x3(to: Parts, has: Given) -> None:
    """The convolution of the last rows before the strip, at the top a row of zeros instead, of the
    strip's, and at the bottom of a row of zeros."""
    axis, end = to.integers("axis", 1), to.integers("end", _LAST)
    batch = to.add("Shape", "batch", has["rows"], start=0, end=1)
    sizes = to.add("Shape", "sizes", has["rows"], start=2)

    def zeros(part: str, count: str) -> str:
        shape = to.add("Concat", f"{part}/shape", batch, count, sizes, axis=0)
        float_zeros = to.add("ConstantOfShape", f"{part}/float", shape)
        return to.add("CastLike", part, float_zeros, has["rows"])

    first = to.add("Mul", "first", to.integers("count", CACHED_ROWS), has["top"])
    above = to.add("Slice", "above", has["rows"], first, end, axis)
    padding = zeros("padding_above", has["top"]), zeros("padding_below", has["bottom"])
    seen = to.add("Concat", "seen", padding[0], above, has["x"], padding[1], axis=1)
    _pixels(to, _planes(to, seen, has, pads=[0, 1, 0, 1]))
    _keep(to, has["rows"], has["x"], to.integers("first_kept", -CACHED_ROWS), end, axis)


def _strip_add(to: Parts, has: Given) -> None:
    """The rows that are due are cut out of those that wait, at the top none, and the strip's."""
    y = to.node.output[0]
    axis, end, zero = to.integers("axis", 1), to.integers("end", _LAST), to.integers("zero", 0)
    count = to.add("Shape", "count", has["waiting"], start=1, end=2)
    first = to.add("Mul", "first", count, has["top"])
    waiting = to.add("Slice", "waiting", has["waiting"], first, end, axis)
    queue = to.add("Concat", "queue", waiting, has["x"], axis=1)
    rows = to.add("Shape", "rows", has["deep"], start=1, end=2)
    due = to.add("Slice", "due", queue, zero, rows, axis)
    to.add("Add", "sum", has["deep"], due, outputs=(y,))
    to.nodes[-1].name = y
    _keep(to, has["waiting"], has["x"], to.add("Neg", "first_kept", count), end, axis)


def _keep(to: Parts, before: str, x: str, first: str, end: str, axis: str) -> None:
    """As many of the last rows of both as `before` has."""
    newest = to.add("Slice", "newest", x, first, end, axis)
    kept = to.add("Concat", "kept", before, newest, axis=1)
    to.add("Slice", "next", kept, first, end, axis, outputs=(to.node.output[1],))


COMPOSED = {
    MIXER: Composed(
        arguments=(
            *("x", "in_proj_x", "in_proj_z", "conv1d_weight", "conv1d_bias", "x_proj_dt"),
            *("x_proj_B", "x_proj_C", "dt_proj", "A", "D", "delta_bias", "out_proj", "tail", "h0"),
            *("norm_weight", "norm_bias"),
        ),
        outputs=("y", "new_tail", "h_last"),
        parts=_mixer,
        attributes={"epsilon": onnx.AttributeProto.FLOAT},
        shapes=_mixer_shapes,
    ),
    CONV: Composed(
        arguments=("x", "weight", "bias"),
        outputs=("y",),
        parts=_conv3x3,
        attributes={"pads": onnx.AttributeProto.INTS},
    ),
    STRIP_CONV: Composed(
        arguments=("x", "weight", "bias", "rows", "top", "bottom"),
        outputs=("y", "new_rows"),
        parts=_strip_conv3x3,
    ),
    STRIP_ADD: Composed(
        arguments=("deep", "x", "waiting", "top"),
        outputs=("y", "new_waiting"),
        parts=_strip_add,
    ),
}
"""By name. All have the attributes that TensorRT finds plugins by, too."""
