"""Models of one MambaMixer alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from mixer_vectors import EPSILON, MIXER_INPUTS, MIXER_OUTPUTS

onnx = pytest.importorskip("onnx")

VALUES = {"x", "tail", "h0"}


def mixer_model(
    inputs: Mapping[str, np.ndarray], opset: int = 18, prefix: str = "", weights: bool = False
) -> onnx.ModelProto:
    """The operator without a body, in the form of these inputs, those absent that are not there.

    Inputs are of any size but for the convolution's weight, or with `weights` all but x and the
    states are constants. `prefix` stands before the names of all values and of the node, `node`.
    """
    helper, kinds = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    node = helper.make_node(
        "MambaMixer",
        [prefix + name if name in inputs else "" for name in MIXER_INPUTS],
        [prefix + name for name in MIXER_OUTPUTS],
        f"{prefix}node",
        domain="dvmsr",
        epsilon=EPSILON,
        plugin_version="1",
        plugin_namespace="dvmsr",
    )
    constant = {name for name in inputs if weights and name not in VALUES}
    given = [
        helper.make_tensor_value_info(
            prefix + name,
            kinds(value.dtype),
            value.shape if name == "conv1d_weight" else [None] * value.ndim,
        )
        for name, value in inputs.items()
        if name not in constant
    ]
    types = [inputs["x"].dtype, inputs["x"].dtype, np.dtype("float32")]
    made = [
        helper.make_tensor_value_info(name, kinds(kind), [None] * 3)
        for name, kind in zip(node.output, types, strict=True)
    ]
    arrays = [onnx.numpy_helper.from_array(inputs[name], prefix + name) for name in constant]
    graph = helper.make_graph([node], "mixer", given, made, arrays)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("dvmsr", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)
