"""A transposition before a product, some of which ONNX Runtime does not survive."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def turned_product(axes: list[int], shape: list[int | str], cast_from: int = 0) -> onnx.ModelProto:
    """x, turned, times the identity of size 4: in half precision, or cast to FP32."""
    given, computed = (cast_from, TensorProto.FLOAT) if cast_from else (TensorProto.FLOAT16,) * 2
    eye = np.eye(4, dtype=helper.tensor_dtype_to_np_dtype(computed))
    nodes = [helper.make_node("Transpose", ["x"], ["turned"], perm=axes)]
    if cast_from:
        nodes.append(helper.make_node("Cast", ["turned"], ["cast"], to=computed))
    nodes.append(helper.make_node("MatMul", [nodes[-1].output[0], "eye"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", given, shape)],
        [helper.make_tensor_value_info("y", computed, [None] * len(shape))],
        [numpy_helper.from_array(eye, "eye")],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
