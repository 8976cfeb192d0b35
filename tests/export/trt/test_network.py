"""ONNX files of networks of others as sources of engines: what is read of them and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from mixer_model import mixer_model
from mixer_vectors import MixerCase, mixer_inputs
from one_node import one_node_model
from onnx import parser

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.export.onnx import bodies
from dvmsr.export.trt.build import open_source
from dvmsr.export.trt.model import for_tensorrt
from dvmsr.export.trt.network import NetworkSource
from dvmsr.export.trt.request import Request
from dvmsr.runtime.backends.trt.profiles import InputProfile

SIZES = {"u": "BLD", "delta": "BLD", "A": "DN", "B": "BLGN", "C": "BLGN", "D": "D",
         "delta_bias": "D", "h0": "BDN", "z": "BLD"}  # fmt: skip
EXAMPLE = {
    name: [{"B": 1, "L": 9, "D": 6, "N": 4, "G": 2}[axis] for axis in axes]
    for name, axes in SIZES.items()
}


def scan_file(path: Path, told: dict[str, str] | None = None, **options: Any) -> Path:
    """A file of one scan, as `dvmsr-export onnx` describes it."""
    model = one_node_model("SelectiveScan", applied=1, **options)
    properties = {"dvmsr.network": "my:net", "dvmsr.example": json.dumps(EXAMPLE)}
    onnx.helper.set_model_props(model, {**properties, **(told or {})})
    onnx.save(model, path)
    return path


def test_what_a_file_tells(tmp_path: Path) -> None:
    source = open_source(Request(scan_file(tmp_path / "net.onnx")))
    assert isinstance(source, NetworkSource)
    assert source.precision == "fp32"
    said: list[str] = []
    model = source.exported()
    profiles = source.profiles(model, said.append)
    assert profiles["u"] == InputProfile((1, 9, 6), (1, 9, 6), (2, 18, 12))
    assert profiles["B"].max == (2, 18, 4, 8)
    (line,) = said
    assert line.startswith("the engine will take u 1x9x6 to 2x18x12, tuned for 1x9x6; delta")
    assert line.endswith("choose other sizes of B, L, D, N, G with --min, --opt and --max")
    assert source.products(model) is None


@pytest.mark.parametrize(
    ("dtype", "told", "precision"),
    [
        ("float32", {}, "fp32"),
        ("float16", {}, "fp16"),
        ("float16", {"dvmsr.precision": "fp16"}, "fp16"),
    ],
)
def test_the_precision_is_the_files(
    tmp_path: Path, dtype: str, told: dict[str, str], precision: str
) -> None:
    path = scan_file(tmp_path / "net.onnx", told, dtype=dtype)
    assert open_source(Request(path)).precision == precision
    assert open_source(Request(path, precision=precision)).precision == precision


@pytest.mark.parametrize("plugin", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_parts_of_a_mixer(tmp_path: Path, dtype: str, plugin: bool) -> None:
    """Which are what the plugin computes, and whose products count."""
    path = tmp_path / "net.onnx"
    inputs = mixer_inputs(MixerCase(1, 9, 8, 4), dtype)
    model = mixer_model(inputs, weights=True)
    bodies.attach(model)
    example = {name: list(inputs[name].shape) for name in ("x", "tail", "h0")}
    onnx.helper.set_model_props(model, {"dvmsr.example": json.dumps(example)})
    onnx.save(model, path)
    source = open_source(Request(path, plugin=plugin))
    exported = source.exported()
    products = [
        "in_proj_x",
        "in_proj_z",
        "x_proj_dt",
        "dt_proj",
        "x_proj_B",
        "x_proj_C",
        "out_proj",
    ]
    half = tuple(f"y/{name}" for name in products)
    assert source.products(exported) == (half if dtype == "float16" else None)
    found = for_tensorrt(exported, plugin)
    assert (found.operators, found.plugin_layers) == (2, 2 * plugin)
    graph = onnx.load_from_string(found.data).graph
    custom = [node.op_type for node in graph.node if node.domain]
    assert custom == (["CausalConv1d", "SelectiveScan"] if plugin else [])


def test_a_file_of_another_program_may_tell_nothing(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = one_node_model("SelectiveScan", applied=1, gate=False)
    model.graph.node[0].name = ""
    onnx.save(model, path)
    sizes = {name: tuple(shape) for name, shape in EXAMPLE.items() if name != "z"}
    source = open_source(Request(path, opt=sizes))
    assert source.profiles(source.exported(), lambda line: None)["h0"].opt == (1, 6, 4)
    (property_,) = source.exported().metadata_props
    assert (property_.key, property_.value) == ("dvmsr.network", "unknown")
    assert [node.name for node in source.exported().graph.node] == ["SelectiveScan_0"]


MATMULS = """<ir_version: 8, opset_import: ["":18, "dvmsr":1]>
g (float16[N,4] x) => (float16[N,4] y) <float16[4,4] w = {0,0,0,0, 0,0,0,0, 0,0,0,0, 0,0,0,0}> {
    [linear] a = MatMul (x, w)
    [up] wide = Cast <to = 1> (a)
    [up_w] wide_w = Cast <to = 1> (w)
    [linear_1] b = MatMul (wide, wide_w)
    [down] y = Cast <to = 10> (b)
}"""


def test_products_count_that_the_file_types_so(tmp_path: Path) -> None:
    """What is FP32 on purpose may stay so."""
    path = tmp_path / "net.onnx"
    onnx.save(parser.parse_model(MATMULS), path)
    source = open_source(Request(path, plugin=False, opt=(2, 4)))
    assert source.precision == "fp16"
    assert source.products(source.exported()) == ("linear",)


def test_the_type_of_a_product_behind_an_unknown_operator_is_its_weights(tmp_path: Path) -> None:
    text = MATMULS.replace("[linear] a = MatMul (x, w)", "u = my.Op (x) [linear] a = MatMul (u, w)")
    onnx.save(
        parser.parse_model(text.replace('"dvmsr":1', '"dvmsr":1, "my":1')), tmp_path / "n.onnx"
    )
    source = open_source(Request(tmp_path / "n.onnx", plugin=False, opt=(2, 4)))
    assert source.products(source.exported()) == ("linear",)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_file_in_another_type_than_it_says(tmp_path: Path, precision: str) -> None:
    model = parser.parse_model(MATMULS.replace("float16", "float").replace("to = 10", "to = 1"))
    model.metadata_props.add(key="dvmsr.precision", value=precision)
    onnx.save(model, tmp_path / "net.onnx")
    source = open_source(Request(tmp_path / "net.onnx", plugin=False, opt=(2, 4)))
    with pytest.raises(IncompatibleModelError, match=f"computes in {precision}, but types none"):
        source.products(source.exported())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": (1, 1, 2)}, r"--batch does not go with .*net\.onnx; give all sizes"),
        ({"precision": "fp16"}, "computes in fp32; export it with `dvmsr-export onnx --fp16`, or"),
        ({"precision": "bf16"}, "computes in fp32; leave out --bf16"),
        ({"max": (8, 8)}, "takes u, delta, A, B, .*; say whose shape --max 8x8 is"),
        (
            {"max": {"u": (2, 60000, 60000)}},
            "has a tensor of 7,200,000,000 values, .* and TensorRT takes 2,147,483,647; choose a",
        ),
    ],
    ids=str,
)
def test_options_that_do_not_go_with_it(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = scan_file(tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=message):
        open_source(Request(path, **changes))


def without_softplus(model: onnx.ModelProto) -> None:
    (node,) = model.graph.node
    node.attribute.remove(next(a for a in node.attribute if a.name == "delta_softplus"))


def of_the_future(model: onnx.ModelProto) -> None:
    next(entry for entry in model.opset_import if entry.domain == "dvmsr").version = 7


def without_rank(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def tell(key: str, value: str) -> Any:
    def change(model: onnx.ModelProto) -> None:
        onnx.helper.set_model_props(model, {"dvmsr.network": "my:net", key: value})

    change.__name__ = f"{key} {value}"
    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_softplus, "has dvmsr's operators in their former form"),
        (of_the_future, "was made by a newer dvmsr; upgrade dvmsr"),
        (without_rank, "does not tell how many axes its input u has"),
        (tell("dvmsr.precision", "int8"), "says that it computes in int8, which engines do not"),
        (tell("dvmsr.example", "{"), r"has a damaged dvmsr\.example; export it again"),
        (tell("dvmsr.example_range", "{"), r"has a damaged dvmsr\.example_range; export it again"),
        (tell("dvmsr.dynamic", "[]"), r"has a damaged dvmsr\.dynamic"),
        (tell("dvmsr.example", "[]"), r"has a damaged dvmsr\.example"),
        (tell("dvmsr.example", '{"u": 3}'), r"has a damaged dvmsr\.example"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_that_is_not_right(tmp_path: Path, change: Any, message: str) -> None:
    path = scan_file(tmp_path / "net.onnx")
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    with pytest.raises(IncompatibleModelError, match=message):
        open_source(Request(path))


def test_a_file_without_operators_leaves_the_plugin_nothing_to_do(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(parser.parse_model(MATMULS), path)
    with pytest.raises(UsageError, match=r"has none of dvmsr's operators, .* or add --no-plugin"):
        open_source(Request(path))


def test_inputs_that_tensorrt_gets() -> None:
    """Neither weights, which old files list, nor what nothing reads; what a loop reads it does."""
    model = parser.parse_model(
        """<ir_version: 3, opset_import: ["":18]>
        g (float[N,2] x, float[2,2] w, float unused, float inside, bool go) => (float[N,2] y)
        <float[2,2] w = {1,2,3,4}> {
            a = MatMul (x, w)
            b = If (go) <
                then_branch = t () => (float r) { r = Identity (inside) },
                else_branch = e () => (float q) { q = Neg (inside) }
            >
            y = Mul (a, b)
        }"""
    )
    found = for_tensorrt(model, plugin=False)
    assert found.inputs == ("x", "inside", "go")
    graph = onnx.load_from_string(found.data).graph
    assert tuple(value.name for value in graph.input) == found.inputs
    assert [weight.name for weight in graph.initializer] == ["w"]
    assert (found.operators, found.plugin_layers) == (0, 0)


def test_a_model_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvmsr.export.trt.model.LARGEST_MODEL", 100)
    path = scan_file(tmp_path / "net.onnx")
    with pytest.raises(IncompatibleModelError, match=r"bytes with its weights, and .* most 100"):
        open_source(Request(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nets.vision:mambair", "is a network in PyTorch, .* first `dvmsr-export onnx nets.vision"),
        ("net.engine", "net.engine is an engine already; name the model"),
        ("none.onnx", "does not exist"),
    ],
)
def test_what_is_no_onnx_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.engine").touch()
    with pytest.raises(UsageError, match=message):
        open_source(Request(Path(name)))


def test_shapes_are_not_for_dvmsrs_pictures() -> None:
    for sizes in ({"x": (1, 3, 8, 8)}, (1, 3, 8, 8), (8,)):
        with pytest.raises(UsageError, match="--min takes HEIGHTxWIDTH, such as 270x480, for stud"):
            open_source(Request(Path("student"), min=sizes))


def test_the_command_that_builds_again_gives_every_shape(tmp_path: Path) -> None:
    request = Request(Path("n.onnx"), min={"x": (1, 3), "y": (2,)}, max=(4, 5))
    words = request.command(tmp_path / "n.onnx", tmp_path / "n.engine")
    assert words[3:9] == ("--min", "x:1x3", "--min", "y:2", "--max", "4x5")
