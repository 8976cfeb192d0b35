"""Files without functions: the operators' bodies written out where they are used.

For runtimes that know no functions of a custom domain. What a body makes of weights alone becomes
a weight, because OpenVINO's Scan takes no other values from around it than constants.
"""

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper

from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in standard operators alone; its functions are those of `bodies`."""
    model = onnx.inliner.inline_local_functions(model)
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    _transpose_weights(model.graph)
    return model


def _transpose_weights(graph: onnx.GraphProto) -> None:
    """Replace the nodes that transpose a weight by what they make of it."""
    weights = {weight.name: weight for weight in graph.initializer}
    nodes, transposed = list(graph.node), set()
    del graph.node[:]
    for node in nodes:
        weight = weights.get(node.input[0]) if node.op_type == "Transpose" else None
        if weight is None:
            graph.node.append(node)
            continue
        order = onnx.helper.get_node_attr_value(node, "perm")
        array = np.ascontiguousarray(numpy_helper.to_array(weight).transpose(order))
        graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        transposed.add(weight.name)
    unread = transposed - set(_read(graph))
    kept = [weight for weight in graph.initializer if weight.name not in unread]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    """The names of values that nodes take, in loops too, and that the graph gives."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _read(attribute.g)
