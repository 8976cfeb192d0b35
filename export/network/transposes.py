"""Transposes that ONNX Runtime does not survive.

Where a Transpose that moves the first axis behind all others, or behind all but the last, is cast,
as all half precision is on a processor, and goes into a MatMul, its MatmulTransposeFusion leaves
nodes of unknown operators, and on an x86 processor the process ends while the file is loaded
(microsoft/onnxruntime, issue 28392; so in 1.32). An axis more keeps it from that.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN

_FRONT = "transposes/front"
"""The weight that names the axis in front."""


def keep_apart(graph: onnx.GraphProto, half: bool) -> int:
    """Give each such Transpose an axis more; returns how many it were.

    Args:
        half: whether the graph is typed in half precision, where products are cast, too, and those
            that dvmsr's operators are made of.
    """
    casts = {
        name
        for node in graph.node
        if node.op_type == "Cast" or (half and (node.op_type == "MatMul" or node.domain == DOMAIN))
        for name in node.input
    }
    nodes = list(graph.node)
    found = 0
    del graph.node[:]
    for node in nodes:
        axes = _permutation(node)
        if node.output[0] not in casts or not _moves_the_first_back(axes):
            graph.node.append(node)
            continue
        (given,), (result,) = node.input, node.output
        wide, turned = f"{result}/wide", f"{result}/turned"
        for one in (
            helper.make_node("Unsqueeze", [given, _FRONT], [wide], wide),
            helper.make_node("Transpose", [wide], [turned], node.name, perm=_with_front(axes)),
            helper.make_node("Squeeze", [turned, _FRONT], [result], f"{result}/narrow"),
        ):
            one.metadata_props.extend(node.metadata_props)
            graph.node.append(one)
        found += 1
    if found:
        graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), _FRONT))
    return found


def _permutation(node: onnx.NodeProto) -> list[int]:
    """What a Transpose says of its axes; of other operators, and if it says nothing, none."""
    if node.op_type != "Transpose":
        return []
    return next((list(entry.ints) for entry in node.attribute if entry.name == "perm"), [])


def _moves_the_first_back(axes: list[int]) -> bool:
    rank = len(axes)
    between = list(range(1, rank - 1))
    return rank > 2 and axes in ([*between, 0, rank - 1], [*between, rank - 1, 0])


def _with_front(axes: list[int]) -> list[int]:
    return [0, *(axis + 1 for axis in axes)]
