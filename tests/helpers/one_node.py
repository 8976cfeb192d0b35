"""Models of one operator alone."""

from __future__ import annotations

import pytest
from vectors import CONV_INPUTS, SCAN_INPUTS

from dvmsr.runtime.backends.onnxrt.library import onnxruntime as ort

onnx = pytest.importorskip("onnx")

infers_shapes = pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < (1, 24),
    reason="before ONNX Runtime 1.24 operators with optional inputs have no inferred shapes",
)

SCAN_AXES = {
    "u": "BLD", "delta": "BLD", "A": "DN", "B": "BLGN", "C": "BLGN", "D": "D",
    "delta_bias": "D", "h0": "BDN", "z": "BLD", "y": "BLD", "h_last": "BDN",
}  # fmt: skip
CHANNEL_MAJOR_AXES = {
    "u": "BDL", "delta": "BDL", "B": "BGNL", "C": "BGNL", "z": "BDL", "y": "BDL",
}  # fmt: skip
CONV_AXES = {"x": "BLD", "weight": "DK", "bias": "D", "tail": "BTD", "y": "BLD", "new_tail": "BTD"}
OPERATORS = {
    "SelectiveScan": (SCAN_INPUTS, ("y", "h_last"), SCAN_AXES),
    "CausalConv1d": (CONV_INPUTS, ("y", "new_tail"), CONV_AXES),
}
HALF = {"u", "delta", "B", "C", "z", "x", "tail", "y", "new_tail"}


ATTRIBUTES = {"SelectiveScan": "delta_softplus", "CausalConv1d": "activation"}


def one_node_model(
    operator: str,
    dtype: str = "float32",
    *,
    ranks: bool = True,
    body: bool = False,
    gate: bool = True,
    applied: int | None = None,
    channel_major: int | None = None,
) -> onnx.ModelProto:
    """The operator alone, all sizes symbolic (no shapes at all without `ranks`).

    With `body`, a model-local function of the same name is attached that returns its last input
    twice. Without `gate`, SelectiveScan has no z. `applied` and `channel_major`: the operator's
    attributes, left to their defaults by None.
    """
    inputs, outputs, axes = OPERATORS[operator]
    if channel_major and operator == "SelectiveScan":
        axes = axes | CHANNEL_MAJOR_AXES
    if not gate:
        inputs = tuple(name for name in inputs if name != "z")

    def value(name: str, declared: bool) -> onnx.ValueInfoProto:
        half = dtype == "float16" and name in HALF
        element = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
        return onnx.helper.make_tensor_value_info(
            name, element, list(axes[name]) if declared else None
        )

    attributes: dict[str, str | int] = {"plugin_version": "1", "plugin_namespace": "dvmsr"}
    if applied is not None:
        attributes[ATTRIBUTES[operator]] = applied
    if channel_major is not None:
        attributes["channel_major"] = channel_major
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("dvmsr", 1)]
    node = onnx.helper.make_node(
        operator, inputs, outputs, name="the_node", domain="dvmsr", **attributes
    )
    function = onnx.helper.make_function(
        "dvmsr", operator, inputs, outputs,
        [onnx.helper.make_node("Identity", [inputs[-1]], [name]) for name in outputs],
        opsets[:1], list(attributes),
    )  # fmt: skip
    graph = onnx.helper.make_graph(
        [node], "one_node", [value(n, ranks) for n in inputs], [value(n, False) for n in outputs]
    )
    return onnx.helper.make_model(
        graph, opset_imports=opsets, functions=[function] if body else [], ir_version=9
    )
