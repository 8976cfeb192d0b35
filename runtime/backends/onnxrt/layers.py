"""The values between the nodes of an exported ONNX file; imports the package onnx."""

from collections.abc import Sequence
from pathlib import Path

import onnx

_COMPUTING = {
    *("Sub", "Add", "Conv", "MatMul", "LayerNormalization", "LeakyRelu", "DepthToSpace"),
    *("CausalConv1d", "SelectiveScan"),
}
"""Operators whose results are worth comparing: the others move, cut or count."""


def computed_values(path: Path) -> list[str]:
    """Names of the first results of the file's nodes, in the order of the nodes."""
    graph = onnx.load(path).graph
    return [node.output[0] for node in graph.node if node.op_type in _COMPUTING]


def with_outputs(path: Path, names: Sequence[str]) -> bytes:
    """The file's model with these values as outputs too."""
    model = onnx.load(path)
    declared = {output.name for output in model.graph.output}
    for name in names:
        if name not in declared:  # its type is inferred on loading
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    return model.SerializeToString()
