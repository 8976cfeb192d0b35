"""A graph in VMamba's pattern: four directions as the groups of one SelectiveScan."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GROUPS = 4
"""By rows, by columns, and both backwards."""
NODE = "cross/scan"


def cross_scan_model(channels: int = 24, rank: int = 3, half: bool = False) -> onnx.ModelProto:
    """(B, 3, H, W) -> (B, channels, H, W) in opset 18, without bodies.

    Sequences, steps, B and C are made as (B, 4, ..., L), as VMamba makes them, and brought to the
    operator's order by reshapes and transposes; N is 1 and there is no gate.
    """
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    act = np.float16 if half else np.float32

    def constant(value: Any, dtype: Any = np.int64) -> str:
        name = f"constant{len(constants)}"
        constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(*shape: int, dtype: Any = act) -> str:
        return constant(rng.standard_normal(shape), dtype)

    def node(op: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        output = to or f"{op}{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    inner = GROUPS * channels
    x = node("Conv", "input", weight(channels, 3, 1, 1))
    rows = node("Reshape", x, constant([0, 1, channels, -1]))
    columns = node(
        "Reshape", node("Transpose", x, perm=[0, 1, 3, 2]), constant([0, 1, channels, -1])
    )
    ahead = node("Concat", rows, columns, axis=1)
    last, before, axes, steps = (constant([value]) for value in (-1, -(2**62), 3, -1))
    sequences = node("Concat", ahead, node("Slice", ahead, last, before, axes, steps), axis=1)

    projected = node("MatMul", weight(GROUPS, rank + 2, channels), sequences)
    nodes.append(
        helper.make_node(
            "Split", [projected, constant([rank, 1, 1])], ["dts", "Bs", "Cs"], name="split", axis=2
        )
    )
    dts = node("MatMul", weight(GROUPS, channels, rank), "dts")

    def by_token(value: str) -> str:
        return node("Transpose", node("Reshape", value, constant([0, inner, -1])), perm=[0, 2, 1])

    batch = node("Slice", node("Shape", "input"), constant([0]), constant([1]))
    state_shape = node("Concat", batch, constant([inner, 1]), axis=0)
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    scan = [
        by_token(sequences),
        by_token(dts),
        constant(-np.ones((inner, 1)), np.float32),
        node("Transpose", "Bs", perm=[0, 3, 1, 2]),
        node("Transpose", "Cs", perm=[0, 3, 1, 2]),
        weight(inner, dtype=np.float32),
        weight(inner, dtype=np.float32),
        node("ConstantOfShape", state_shape, value=zero),
    ]
    form = {"plugin_version": "1", "plugin_namespace": "dvmsr", "delta_softplus": 1}
    nodes.append(
        helper.make_node("SelectiveScan", scan, ["y", "h_last"], name=NODE, domain="dvmsr", **form)
    )
    by_channel = node("Transpose", "y", perm=[0, 2, 1])
    directions = node("Reshape", by_channel, constant([0, GROUPS, channels, -1]))
    summed = node("ReduceSum", directions, constant([1]), keepdims=0)
    node("Reshape", summed, node("Shape", x), to="output")

    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    shapes = {"input": ["batch", 3, "height", "width"]}
    shapes["output"] = ["batch", channels, "height", "width"]
    ends = {
        name: [helper.make_tensor_value_info(name, kind, shape)] for name, shape in shapes.items()
    }
    graph = helper.make_graph(nodes, "cross", ends["input"], ends["output"], constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("dvmsr", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def channel_major(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, with the transposes beside the scan as part of it."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (scan,) = (node for node in changed.graph.node if node.name == NODE)
    made = {node.output[0]: node for node in changed.graph.node}
    read = {node.input[0]: node for node in changed.graph.node if node.input}
    beside = [made[scan.input[i]] for i in (0, 1, 3, 4)] + [read[scan.output[0]]]
    assert {node.op_type for node in beside} == {"Transpose"}
    for i, transpose in zip((0, 1, 3, 4), beside, strict=False):
        scan.input[i] = transpose.input[0]
    scan.output[0] = beside[-1].output[0]
    scan.attribute.append(helper.make_attribute("channel_major", 1))
    for transpose in beside:
        changed.graph.node.remove(transpose)
    return changed
