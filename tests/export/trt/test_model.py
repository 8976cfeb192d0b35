"""What is read of a file for TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mixer_model import mixer_model, onnx
from mixer_vectors import MIXER_INPUTS, MixerCase, mixer_inputs
from one_node import one_node_model

from dvmsr.errors import IncompatibleModelError
from dvmsr.export.trt.model import load


def mixer(**form: bool) -> onnx.ModelProto:
    return mixer_model(mixer_inputs(MixerCase(1, 5, 8, 4, **form), "float32"), weights=True)


def lack(argument: str) -> Callable[[onnx.ModelProto], None]:
    def damage(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[MIXER_INPUTS.index(argument)] = ""

    return damage


def cut_inputs(model: onnx.ModelProto) -> None:
    del model.graph.node[0].input[2:]


def cut_outputs(model: onnx.ModelProto) -> None:
    del model.graph.node[0].output[1:]


def add_output(model: onnx.ModelProto) -> None:
    model.graph.node[0].output.append("another")


def unname_output(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = ""


def add_input(model: onnx.ModelProto) -> None:
    model.graph.node[0].input.extend(["x"] * 9)


DAMAGES = [
    ("MambaMixer", lack("A"), "lacks A"),
    ("MambaMixer", lack("in_proj_z"), "lacks in_proj_z"),
    ("MambaMixer", lack("norm_weight"), "lacks norm_weight"),
    ("MambaMixer", cut_outputs, "gives 1 outputs where there are 3"),
    ("MambaMixer", add_input, "has 26 inputs where there are 17"),
    ("SelectiveScan", cut_inputs, "lacks A, B, C, D, delta_bias, h0"),
    ("SelectiveScan", unname_output, "gives 1 outputs where there are 2"),
    ("SelectiveScan", add_output, "gives 3 outputs where there are 2"),
    ("CausalConv1d", cut_inputs, "lacks bias, tail"),
]


@pytest.mark.parametrize(
    ("operator", "damage", "message"), DAMAGES, ids=lambda v: None if callable(v) else v
)
def test_a_damaged_node_is_refused(
    operator: str, damage: Callable[[onnx.ModelProto], None], message: str, tmp_path: Path
) -> None:
    model = mixer() if operator == "MambaMixer" else one_node_model(operator)
    damage(model)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(IncompatibleModelError) as caught:
        load(tmp_path / "m.onnx")
    assert str(caught.value).startswith(f"{tmp_path / 'm.onnx'} is damaged ({operator} ")
    assert str(caught.value).endswith(f" {message}); export it again")


@pytest.mark.parametrize("absent", ["norm", "in_proj", "out_proj"])
def test_what_may_be_left_off_may(absent: str, tmp_path: Path) -> None:
    onnx.save(mixer(**{absent: False}), tmp_path / "m.onnx")
    assert "MambaMixer" not in {node.op_type for node in load(tmp_path / "m.onnx").graph.node}
    onnx.save(one_node_model("SelectiveScan", gate=False), tmp_path / "s.onnx")
    load(tmp_path / "s.onnx")


def test_sizes_that_the_parts_are_told_may_be_wrong(tmp_path: Path) -> None:
    model = mixer()
    y = model.graph.output[0].type.tensor_type
    for size in (1, 5, 5):
        y.shape.dim.add(dim_value=size)
    del y.shape.dim[:3]
    next(weight for weight in model.graph.initializer if weight.name == "A").dims[:] = [32]
    onnx.save(model, tmp_path / "m.onnx")
    load(tmp_path / "m.onnx")
