"""A graph typed in half precision.

TensorRT 11 has strongly typed networks only and ONNX Runtime takes types as they are, so the
precision of each node is decided here. Activations are half. In FP32 stay, after the example of
PyTorch's autocast, powers, roots, exponentials and sums, which overflow or lose their small terms;
the arithmetic between them, such as the epsilon of a norm; whole numbers that become fractions;
and what an operator takes in FP32 alone: A, D, delta_bias, states and taps of dvmsr's, the scales
of a Resize. Softmax and the norms that ONNX defines keep their sums in FP32 by themselves.
"""

from collections import defaultdict

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN

_SUMS_AND_POWERS = (
    "CumSum Exp InstanceNormalization Log LpNormalization Pow Range Reciprocal ReduceL1 ReduceL2 "
    "ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd ReduceSum ReduceSumSquare Softplus Sqrt"
)
_BETWEEN = (
    "Abs Add Clip Concat Div Equal Expand Flatten Gather Greater GreaterOrEqual Identity Less "
    "LessOrEqual Max Min Mul Neg Reshape Slice Split Squeeze Sub Tile Transpose Unsqueeze Where"
)
FULL = frozenset(_SUMS_AND_POWERS.split())
"""Operators that compute in FP32."""
LIKE_THEIR_INPUTS = frozenset(_BETWEEN.split())
"""Operators that compute in FP32 where all that they take is FP32 or constant."""
ACTIVATIONS = {
    "SelectiveScan": ({0, 1, 3, 4, 8}, {0}),
    "CausalConv1d": ({0, 3}, {0, 1}),
    "Conv3x3": ({0, 1, 2}, {0}),
    "MambaMixer": ({0, 1, 2, 5, 6, 7, 8, 12, 13, 15, 16}, {0, 1}),
}
"""Inputs and outputs of dvmsr's operators that are half; all others are FP32."""

_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
_SUFFIX = {_FLOAT: "fp32", _HALF: "fp16"}
_ZERO = np.zeros(1, np.float32)
_HALF_TENSOR = "tensor(float16)"


def to_half(model: onnx.ModelProto) -> None:
    """Retype an FP32 model that has no functions yet.

    Its inputs and outputs become half, too, but for states of dvmsr's operators. Weights keep their
    sign; what is finite stays finite, and what is not 0 does not become 0.
    """
    _Typing(model).apply()


class _Typing:
    """Goes through the nodes in their order and decides what each computes in."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.opset = next(e.version for e in model.opset_import if not e.domain)
        inferred = shape_inference.infer_shapes(model).graph
        self.values = {
            value.name: value for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self.weights = {weight.name: weight for weight in self.graph.initializer}
        self.uses = defaultdict(list)
        for node in self.graph.node:
            for port, name in enumerate(node.input):
                self.uses[name].append((node, port))
        self.typed: dict[str, int] = {}
        """What became of values that were FP32."""
        self.held: dict[tuple[str, int], str] = {}
        """The name that a value or weight has in a type."""
        self.nodes: list[onnx.NodeProto] = []
        self.new_weights: list[onnx.TensorProto] = []

    def apply(self) -> None:
        for value in self.graph.input:
            if self._was_float(value.name):
                uses = self.uses[value.name]
                state = bool(uses) and all(
                    node.domain == DOMAIN and not _takes_half(node, port, self.opset)
                    for node, port in uses
                )
                self.typed[value.name] = _FLOAT if state else _HALF
        for node in self.graph.node:
            self._retype(node)
        for value in self.graph.output:
            if self.typed.get(value.name) == _FLOAT and not self._is_state(value.name):
                self._round_output(value.name)
        self._tell_types()
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        others = [w for w in self.graph.initializer if w.data_type != _FLOAT]
        others = [onnx.TensorProto.FromString(w.SerializeToString()) for w in others]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*others, *self.new_weights])

    def _was_float(self, name: str) -> bool:
        if name in self.weights:
            return bool(self.weights[name].data_type == _FLOAT)
        return name in self.values and self.values[name].type.tensor_type.elem_type == _FLOAT

    def _retype(self, original: onnx.NodeProto) -> None:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        graphs = [entry.g for entry in node.attribute if entry.HasField("g")]
        half = not graphs and self._is_half(node)
        for port, name in enumerate(node.input):
            if self._was_float(name):
                taken = half and _takes_half(node, port, self.opset)
                node.input[port] = self._in(_HALF if taken else _FLOAT, name)
        for graph in graphs:
            self._capture_full(graph)
        for port, name in enumerate(node.output):
            if self._was_float(name):
                made = half and _gives_half(node, port, self.opset)
                self.typed[name] = _HALF if made else _FLOAT
        if half and any(self._was_float(name) for name in node.output):
            _retype_attributes(node)
        self.nodes.append(node)

    def _is_half(self, node: onnx.NodeProto) -> bool:
        given = [name for name in node.input if self._was_float(name)]
        known = [self.typed[name] for name in given if name in self.typed]
        if node.op_type == "Cast":  # of fractions in their type; True and False are exact in half
            from_bool = self._type(node.input[0]) == TensorProto.BOOL
            return known == [_HALF] or from_bool
        if node.op_type in LIKE_THEIR_INPUTS or not given:
            if known:
                return _HALF in known
            uses = [use for name in node.output for use in self.uses[name]]
            return any(self._wants_half(user, port) for user, port in uses)
        return node.op_type not in FULL

    def _wants_half(self, node: onnx.NodeProto, port: int) -> bool:
        return node.op_type not in FULL and _takes_half(node, port, self.opset)

    def _type(self, name: str) -> int:
        if name in self.weights:
            return int(self.weights[name].data_type)
        return int(self.values[name].type.tensor_type.elem_type)

    def _in(self, kind: int, name: str) -> str:
        """The name of a value or weight in a type, which is made where it is missing."""
        if self.typed.get(name) == kind:
            return name
        if (name, kind) not in self.held:
            used = {key for key in self.held if key[0] == name}
            new = name if name in self.weights and not used else f"{name}/{_SUFFIX[kind]}"
            if name in self.weights:
                self.new_weights.append(_converted(self.weights[name], kind, new))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [new], new, to=kind))
            self.held[name, kind] = new
        return self.held[name, kind]

    def _capture_full(self, graph: onnx.GraphProto) -> None:
        """Let the body of a loop or branch take FP32 from around it."""
        for node in graph.node:
            for port, name in enumerate(node.input):
                if self._was_float(name):
                    node.input[port] = self._in(_FLOAT, name)
            for entry in node.attribute:
                if entry.HasField("g"):
                    self._capture_full(entry.g)

    def _is_state(self, name: str) -> bool:
        return any(name in node.output for node in self.nodes if node.domain == DOMAIN)

    def _round_output(self, name: str) -> None:
        full = f"{name}/{_SUFFIX[_FLOAT]}"
        for node in self.nodes:
            for names in (node.input, node.output):
                for port, one in enumerate(names):
                    if one == name:
                        names[port] = full
        self.nodes.append(helper.make_node("Cast", [full], [name], f"{name}/cast", to=_HALF))
        self.typed[name] = _HALF

    def _tell_types(self) -> None:
        told = [value for value in self.graph.value_info if value.name not in self.weights]
        copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in told]
        del self.graph.value_info[:]
        self.graph.value_info.extend(copies)
        for value in (*self.graph.input, *self.graph.value_info, *self.graph.output):
            if value.name in self.typed:
                value.type.tensor_type.elem_type = self.typed[value.name]


def _takes_half(node: onnx.NodeProto, port: int, opset: int) -> bool:
    if node.domain == DOMAIN:
        return port in ACTIVATIONS[node.op_type][0]
    return _admits_half(node, port, opset, "inputs")


def _gives_half(node: onnx.NodeProto, port: int, opset: int) -> bool:
    if node.domain == DOMAIN:
        return port in ACTIVATIONS[node.op_type][1]
    return _admits_half(node, port, opset, "outputs")


def _admits_half(node: onnx.NodeProto, port: int, opset: int, kind: str) -> bool:
    """Whether ONNX lets a port be half; an operator that it does not define is left alone."""
    if node.domain or not defs.has(node.op_type):
        return False
    schema = defs.get_schema(node.op_type, opset)
    ports = getattr(schema, kind)
    parameter = ports[min(port, len(ports) - 1)]  # the last may stand for many
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    return _HALF_TENSOR in allowed.get(parameter.type_str, [parameter.type_str])


def _retype_attributes(node: onnx.NodeProto) -> None:
    """Types and constants that a node names itself, and the one that is FP32 by default."""
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(_ZERO)))
    for entry in node.attribute:
        if entry.name in ("to", "dtype") and entry.i == _FLOAT:
            entry.i = _HALF
        elif entry.HasField("t") and entry.t.data_type == _FLOAT:
            entry.t.CopyFrom(_converted(entry.t, _HALF, entry.t.name))


def _converted(weight: onnx.TensorProto, kind: int, name: str) -> onnx.TensorProto:
    array = numpy_helper.to_array(weight)
    return numpy_helper.from_array(rounded(array) if kind == _HALF else array, name)


def rounded(array: NDArray[np.float32]) -> NDArray[np.float16]:
    """To the nearest half that is finite, or 0, where the value is."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    limits = np.finfo(np.float16)
    beyond = np.isinf(half) & np.isfinite(array)
    half = np.where(beyond, np.copysign(limits.max, half), half)
    lost = (half == 0) & (array != 0)
    return np.where(lost, np.copysign(limits.smallest_subnormal, half), half)
