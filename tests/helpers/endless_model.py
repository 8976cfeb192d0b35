"""An ONNX file whose loop has no end, with dvmsr's metadata or as another program's."""

from __future__ import annotations

from pathlib import Path

from dvmsr.config import DVMSRConfig


def save_endless(path: Path, config: DVMSRConfig | None = None) -> Path:
    """A network of that architecture by its metadata; None for another program's file."""
    import onnx
    from onnx import TensorProto, helper

    def value(name: str, kind: int, shape: list[object] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    pairs = [("again", "again_"), ("image", "image_")]
    body = helper.make_graph(
        [helper.make_node("Identity", [before], [after]) for before, after in pairs],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("again", TensorProto.BOOL, []),
            value("image", TensorProto.FLOAT, None),
        ],
        [value("again_", TensorProto.BOOL, []), value("image_", TensorProto.FLOAT, None)],
    )
    ends = [
        value(name, TensorProto.FLOAT, [1, 3, f"{name} h", f"{name} w"])
        for name in ("input", "output")
    ]
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    loop = helper.make_node("Loop", ["", "true", "input"], ["output"], body=body)
    graph = helper.make_graph([loop], "g", ends[:1], ends[1:], [true])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if config is not None:
        helper.set_model_props(model, {"dvmsr.config": config.to_json()})
        model.functions.append(
            helper.make_function(
                "dvmsr", "CausalConv1d", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])],
                [helper.make_opsetid("", 18)],
            )
        )  # fmt: skip
        model.opset_import.append(helper.make_opsetid("dvmsr", 1))
    onnx.save(model, path)
    return path
