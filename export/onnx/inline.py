"""Files without functions: the operators' bodies written out where they are used.

For runtimes that know no functions of a custom domain. What a body makes of weights alone becomes
a weight, because OpenVINO's Scan takes no other values from around it than constants.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from dvmsr.export.onnx import bodies
from dvmsr.export.onnx.forms import shapes
from dvmsr.runtime.backends.onnxrt import composed
from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in standard operators alone; its functions are those of `bodies`."""
    composed.inline(model)
    bodies.attach(model)
    model = onnx.inliner.inline_local_functions(model)
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    _fold(model)
    return model


_FOLDED = ("Constant", "Shape", "Concat", "Reshape", "Transpose")
"""The operators that bodies apply to weights."""


def _fold(model: onnx.ModelProto) -> None:
    """Replace what is made of weights and of sizes that the graph tells by weights."""
    graph = model.graph
    told = shapes(graph)
    weights = {weight.name: weight for weight in graph.initializer}
    nodes = list(graph.node)
    made: dict[str, onnx.TensorProto] = {}
    del graph.node[:]
    for node in nodes:
        array: NDArray[Any] | None = _size(node, told)
        if node.op_type in _FOLDED and all(name in weights for name in node.input):
            inputs = {key: numpy_helper.to_array(weights[key]) for key in node.input}
            (array,) = list(ReferenceEvaluator(node).run(None, inputs))
        if array is None:
            graph.node.append(node)
        else:
            name: str = node.output[0]
            made[name] = weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
    read = set(values_read(graph))
    kept = [weight for weight in graph.initializer if weight.name in read]
    kept += [weight for weight in made.values() if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _size(node: onnx.NodeProto, told: Mapping[str, tuple[int, ...]]) -> NDArray[Any] | None:
    """What a Shape of sizes that the graph tells gives."""
    if node.op_type != "Shape" or node.input[0] not in told:
        return None
    bounds = {entry.name: entry.i for entry in node.attribute}
    sizes = told[node.input[0]][bounds.get("start", 0) : bounds.get("end")]
    return np.array(sizes, np.int64) if sizes and all(sizes) else None


def values_read(graph: onnx.GraphProto) -> Iterator[str]:
    """The names of values that nodes take, in loops too, and that the graph gives."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from values_read(attribute.g)
