"""ONNX files as other programs write them: pixels repeated, with one more operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SCALE = 2


def save_foreign(
    path: Path,
    operator: str,
    scale: float = SCALE,
    shape: tuple[object, ...] = (1, 3, "h", "w"),
    **options: object,
) -> Path:
    """A file that repeats every pixel and then applies the operator."""
    import onnx
    from onnx import TensorProto, helper

    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, scale, scale])
    bounds = [
        helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        for name, value in (("low", 0.0), ("high", 1.0))
    ]
    nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    inputs = ["large", "low", "high"] if operator == "Clip" else ["large"]
    nodes = [
        helper.make_node("Resize", ["picture", "", "scales"], ["large"], mode="nearest", **nearest),
        helper.make_node(operator, inputs, ["result"], **options),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sides)
        for name, sides in (("picture", shape), ("result", [None] * 4))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [scales, *bounds])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


def repeated(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What these files make of a picture, with values of the right range."""
    return image.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
