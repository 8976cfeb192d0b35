"""TensorRT for RTX, its ONNX parser and builder, on exported models: works without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cross_scan import NODE, channel_major, cross_scan_model
from onnx import TensorProto, numpy_helper
from rtx import skip_without_rtx
from tensorrt_library import PLUGINS, build

from dvmsr.config import DVMSRConfig
from dvmsr.export import export_onnx
from dvmsr.export.onnx.forms import write_out_layouts
from dvmsr.export.trt.run import link_rtx
from dvmsr.model import DVMSR
from dvmsr.runtime.backends.onnxrt import composed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where TensorRT for RTX finds itself under the name that its registry asks for."""
    skip_without_rtx()
    folder = tmp_path_factory.mktemp("rtx")
    link_rtx(folder)
    return folder


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One ViMM of the official size in its parts, without function bodies."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "one.onnx"
    export_onnx(DVMSR(DVMSRConfig(depths=(1,))), path, precision=request.param, verify=False)
    model = onnx.load(path)
    composed.inline(model)
    del model.functions[:]
    return model


def build_plan(
    model: onnx.ModelProto, folder: Path, libraries: Path, plugin: str | Path
) -> tuple[dict[str, Any], str]:
    """What the build reported, and its messages."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    script = Path(__file__).with_name("tensorrt_rtx_build.py")
    result = subprocess.run(
        [sys.executable, script, plugin, path],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def custom_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == "dvmsr"]


def test_builds_a_plan_with_a_plugin_per_custom_node(
    model: onnx.ModelProto, libraries: Path, tmp_path: Path
) -> None:
    report, messages = build_plan(model, tmp_path, libraries, build("found").pure)
    assert report.get("plugins") == [node.name for node in custom_nodes(model)], messages
    assert len(report["plugins"]) == 2
    assert report["plan_bytes"] > 100_000


def test_takes_a_streaming_model(libraries: Path, tmp_path: Path) -> None:
    """With its flags as shape tensors."""
    network = DVMSR(DVMSRConfig(channels=16, depths=(1, 1)))
    export_onnx(network, tmp_path / "s.onnx", precision="fp16", streaming=True, verify=False)
    model = onnx.load(tmp_path / "s.onnx")
    composed.inline(model)
    del model.functions[:]
    report, messages = build_plan(model, tmp_path, libraries, build("found").pure)
    assert report.get("plugins") == [node.name for node in custom_nodes(model)], messages
    assert report["plan_bytes"] > 50_000


def test_needs_the_plugin(model: onnx.ModelProto, libraries: Path, tmp_path: Path) -> None:
    report, _ = build_plan(model, tmp_path, libraries, "")
    assert "Plugin not found" in " ".join(report["errors"])


def test_needs_the_version(model: onnx.ModelProto, libraries: Path, tmp_path: Path) -> None:
    changed = copy_of(model)
    for node in custom_nodes(changed):
        (attribute,) = [a for a in node.attribute if a.name == "plugin_version"]
        attribute.s = b"2"
    report, _ = build_plan(changed, tmp_path, libraries, build("found").pure)
    assert "Plugin not found" in " ".join(report["errors"])


def test_a_node_of_another_domain_is_not_the_plugins(
    model: onnx.ModelProto, libraries: Path, tmp_path: Path
) -> None:
    changed = copy_of(model)
    changed.opset_import.append(onnx.helper.make_opsetid("other", 1))
    for node in custom_nodes(changed):
        node.domain = "other"
        (attribute,) = [a for a in node.attribute if a.name == "plugin_namespace"]
        attribute.s = b"other"
    report, _ = build_plan(changed, tmp_path, libraries, build("found").pure)
    assert "Plugin not found" in " ".join(report["errors"])


@pytest.fixture(scope="module")
def fp32_plugin(libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin without half precision."""
    folder = tmp_path_factory.mktemp("fp32")
    text = (PLUGINS / "tensorrt" / "plugin.cpp").read_text()
    types = "type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16"
    assert types in text
    (folder / "plugin.cpp").write_text(text.replace(types, "type == DataType::kFLOAT"))
    return build("found").compile_for_host(folder / "plugin.so", folder / "plugin.cpp")


def test_a_plugin_for_fp32_alone_does_not_serve_fp16(
    model: onnx.ModelProto, libraries: Path, tmp_path: Path, fp32_plugin: Path
) -> None:
    report, messages = build_plan(model, tmp_path, libraries, fp32_plugin)
    half = model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert bool(report.get("plan_bytes")) != half, messages
    assert ("x is FP16 instead of" in messages) == half


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_takes_four_directions_as_groups(half: bool, libraries: Path, tmp_path: Path) -> None:
    """VMamba's pattern with dynamic sizes: no axis is of two sizes to the plugin."""
    report, messages = build_plan(
        cross_scan_model(half=half), tmp_path, libraries, build("found").pure
    )
    assert report.get("plugins") == [NODE], report
    assert report["plan_bytes"] > 10_000
    assert "dvmsr" not in messages


def test_the_attribute_reaches_the_plugin(libraries: Path, tmp_path: Path) -> None:
    """TensorRT's parser gives those that the plugin names."""
    for value, message in ((0, ""), (2, "attribute delta_softplus is 2 instead of 0 or 1")):
        changed = cross_scan_model()
        (scan,) = custom_nodes(changed)
        (attribute,) = [a for a in scan.attribute if a.name == "delta_softplus"]
        attribute.i = value
        report, messages = build_plan(changed, tmp_path, libraries, build("found").pure)
        assert bool(report.get("plan_bytes")) == (not message), messages
        assert message in messages


def test_channel_major_tensors_want_their_transposes_written_out(
    libraries: Path, tmp_path: Path
) -> None:
    changed = channel_major(cross_scan_model())
    report, messages = build_plan(changed, tmp_path, libraries, build("found").pure)
    assert not report.get("plan_bytes")
    assert "channel_major is 1, but the kernels read token-major tensors alone" in messages
    write_out_layouts(changed.graph)
    report, messages = build_plan(changed, tmp_path, libraries, build("found").pure)
    assert report.get("plugins") == [NODE], messages


def test_channels_come_in_whole_groups(libraries: Path, tmp_path: Path) -> None:
    """B and C of eight groups for a hundred channels."""
    changed = cross_scan_model(channels=25)
    (scan,) = custom_nodes(changed)
    for i in (3, 4):
        twice = onnx.helper.make_node("Concat", [scan.input[i]] * 2, [f"twice{i}"], axis=2)
        changed.graph.node.insert(list(changed.graph.node).index(scan), twice)
        scan.input[i] = twice.output[0]
    report, messages = build_plan(changed, tmp_path, libraries, build("found").pure)
    assert not report.get("plan_bytes")
    assert "D must be a multiple of the number of groups G" in messages


def test_refuses_a_node_of_the_former_form(libraries: Path, tmp_path: Path) -> None:
    """Whose B and C had no groups."""
    changed = cross_scan_model()
    (scan,) = custom_nodes(changed)
    changed.graph.initializer.append(numpy_helper.from_array(np.array([2]), "groups"))
    squeezed = onnx.helper.make_node("Squeeze", [scan.input[3], "groups"], ["squeezed"])
    changed.graph.node.insert(list(changed.graph.node).index(scan), squeezed)
    scan.input[3] = "squeezed"
    report, messages = build_plan(changed, tmp_path, libraries, build("found").pure)
    assert not report.get("plan_bytes")
    assert "B has 3 dimensions instead of 4; export the model again" in messages


@pytest.mark.parametrize("bodies", [False, True], ids=["stripped", "with bodies"])
def test_the_plugin_serves_nodes_of_any_overload(
    bodies: bool, libraries: Path, tmp_path: Path
) -> None:
    """By which files tell the forms of an operator apart."""
    changed = cross_scan_model()
    (scan,) = custom_nodes(changed)
    scan.overload = "G4"
    if bodies:
        nodes = [onnx.helper.make_node("Identity", [scan.input[0]], ["y"])]
        nodes.append(onnx.helper.make_node("Identity", [scan.input[7]], ["h_last"]))
        changed.functions.append(
            onnx.helper.make_function(
                "dvmsr", scan.op_type, list(scan.input), list(scan.output), nodes,
                changed.opset_import[:1], [a.name for a in scan.attribute], overload="G4",
            )
        )  # fmt: skip
    report, messages = build_plan(changed, tmp_path, libraries, build("found").pure)
    assert report.get("plugins") == [NODE], messages


def half_parameter(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    cast = onnx.helper.make_node("Cast", [node.input[1]], ["half_weight"], to=TensorProto.FLOAT16)
    model.graph.node.insert(0, cast)
    node.input[1] = "half_weight"


def third_output(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    node.output.append("third")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (half_parameter, "dvmsr CausalConv1d: weight is FP16 instead of FP32"),
        (third_output, "expected output size is 2, actual output size is 3"),
    ],
)
def test_refuses_a_wrong_node(
    model: onnx.ModelProto,
    libraries: Path,
    tmp_path: Path,
    change: Callable[[onnx.NodeProto, onnx.ModelProto], None],
    message: str,
) -> None:
    changed = copy_of(model)
    change(next(n for n in custom_nodes(changed) if n.op_type == "CausalConv1d"), changed)
    report, messages = build_plan(changed, tmp_path, libraries, build("found").pure)
    assert not report.get("plan_bytes")
    assert message in messages + " ".join(report.get("errors", []))


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
