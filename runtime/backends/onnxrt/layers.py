"""The values between the nodes of an exported ONNX file; imports the package onnx.

Inside a mixer there are none where a kernel computes it at once, else those between its parts.
"""

from collections.abc import Sequence
from pathlib import Path

import onnx

from dvmsr.runtime.backends.onnxrt import composed

_COMPUTING = {
    *("Sub", "Add", "Conv", "MatMul", "LayerNormalization", "LeakyRelu"),
    *("CausalConv1d", "SelectiveScan", *composed.COMPOSED),
}
"""Operators whose results are worth comparing: the others move, cut or count."""
_OF_EACH_VALUE = {"Add", "LeakyRelu"}
"""Of these, what leaves pixels where they are."""


def computed_values(path: Path, parts: bool) -> list[str]:
    """Names of the first results of the file's nodes, in the order of the nodes; of the rows that
    a `StripAdd` gives, those of the tokens that they become.

    Args:
        parts: show the parts of mixers in their place.
    """
    graph = _load(path, parts).graph
    last = graph.output[0].name
    tokens = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Reshape"}
    return [
        tokens.get(name, name) if node.op_type == composed.STRIP_ADD else name
        for node in graph.node
        if (name := node.output[0]) == last or node.op_type in _COMPUTING
    ]


def planes(path: Path) -> dict[str, int]:
    """What a file without `Conv3x3` holds as planes (B, C, H, W) around its convolutions, and by
    what a pixel shuffle after each enlarges it."""
    graph = onnx.load(path).graph
    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Conv" or (node.op_type in _OF_EACH_VALUE and found.keys() & node.input):
            found[node.output[0]] = 1
        elif node.op_type == "DepthToSpace" and node.input[0] in found:
            sizes = (a.i for a in node.attribute if a.name == "blocksize")
            found[node.input[0]] = next(sizes)
    return {name: enlarged for name, enlarged in found.items() if name != graph.output[0].name}


def with_outputs(path: Path, names: Sequence[str], parts: bool) -> bytes:
    """The file's model with these values as outputs too; `parts` as of `computed_values`."""
    model = _load(path, parts)
    declared = {output.name for output in model.graph.output}
    for name in names:
        if name not in declared:  # its type is inferred on loading
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    return model.SerializeToString()


def _load(path: Path, parts: bool) -> onnx.ModelProto:
    model = onnx.load(path)
    if parts:
        composed.inline(model, [composed.MIXER])
    return model
