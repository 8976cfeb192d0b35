"""`dvmsr info` of networks other than DVMSR."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from engine_info import INFO
from foreign_model import save_foreign
from mixer_model import mixer_model
from mixer_vectors import MixerCase, mixer_inputs
from one_node import one_node_model

from dvmsr import network_info
from dvmsr.runtime.backends.trt import engine_file

onnx = pytest.importorskip("onnx")
nn = pytest.importorskip("torch.nn")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(command: Command) -> Command:
    """Runs `dvmsr info` in this process: arguments -> exit code, stdout, stderr."""
    return partial(command, "info")


def test_an_exported_file(command: Command, exported: Callable[[str], Path]) -> None:
    file = exported("gated")
    code, out, err = command(file, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["model"] == str(file)
    assert report["inputs"] == {"tokens": {"dtype": "float32", "shape": ["batch", "length", 8]}}
    assert report["outputs"]["states"]["shape"] == [2, "batch", 8, 4]
    assert report["nodes"]["dvmsr.SelectiveScan"] == report["nodes"]["dvmsr.CausalConv1d"] == 2
    assert report["scans"] == [
        {"count": 2, "D": 8, "N": 4, "G": 1, "gate": True, "channel_major": False}
    ]
    weights = onnx.load(file).graph.initializer
    floats = [w for w in weights if w.data_type == onnx.TensorProto.FLOAT]
    assert report["parameters"] == sum(int(np.prod(w.dims)) for w in floats) > 0
    assert report["bytes"] == file.stat().st_size
    assert report["opsets"] == {"onnx": 18, "dvmsr": 1}
    assert report["producer"].startswith("dvmsr ")
    assert report["metadata"]["dvmsr.network"] == "mamba_patterns:gated"
    code, out, err = command(file)
    assert (code, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["inputs"] == "tokens float32 (batch, length, 8)"
    assert lines["scans"] == "2 of D 8, N 4, G 1, a gate"
    assert lines["network"] == "mamba_patterns:gated"


def test_forms_of_scans(tmp_path: Path, command: Command) -> None:
    """As far as the file tells them."""
    model = one_node_model("SelectiveScan", gate=False, channel_major=1)
    onnx.save(model, tmp_path / "a.onnx")
    assert (
        "scans       1 of D D, N N, G G, no gate, channel-major\n"
        in command(tmp_path / "a.onnx")[1]
    )
    onnx.save(one_node_model("SelectiveScan", ranks=False), tmp_path / "b.onnx")
    out = command(tmp_path / "b.onnx")[1]
    assert "1 of D unknown, N unknown, G unknown, a gate\n" in out
    assert "u float32 any shape" in out


def test_scans_inside_mixers(tmp_path: Path, command: Command) -> None:
    model = mixer_model(mixer_inputs(MixerCase(1, 5, 8, 4), "float32"), weights=True)
    onnx.save(model, tmp_path / "a.onnx")
    out = command(tmp_path / "a.onnx")[1]
    assert "scans       1 of D 8, N 4, G 1, a gate\n" in out
    assert "1: 1 dvmsr.MambaMixer\n" in out


@pytest.mark.parametrize("operator", ["MambaMixer", "SelectiveScan"])
def test_scans_that_lack_inputs(operator: str, tmp_path: Path, command: Command) -> None:
    mixer = mixer_model(mixer_inputs(MixerCase(1, 5, 8, 4), "float32"), weights=True)
    model = mixer if operator == "MambaMixer" else one_node_model(operator)
    del model.graph.node[0].input[1:]
    onnx.save(model, tmp_path / "a.onnx")
    code, out, _ = command(tmp_path / "a.onnx")
    assert code == 0
    assert "scans       1 of D unknown, N unknown, G " in out


def test_nodes_inside_branches_count(tmp_path: Path, command: Command) -> None:
    helper = onnx.helper
    value = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graphs = [
        helper.make_graph([helper.make_node(op, ["x"], ["y"])], op, [], [value])
        for op in ("Neg", "Abs")
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=graphs[0], else_branch=graphs[1])
    inputs = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
    ]
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", inputs, [value])), tmp_path / "m.onnx"
    )
    report = json.loads(command(tmp_path / "m.onnx", "--json")[1])
    assert report["nodes"] == {"If": 1, "Neg": 1, "Abs": 1}
    assert report["inputs"]["c"] == {"dtype": "bool", "shape": []}
    assert (report["scans"], report["parameters"]) == ([], 0)


def test_a_factory(command: Command) -> None:
    code, out, err = command("own_network:with_mamba", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["inputs"] == {"x": {"optional": False}, "mask": {"optional": True}}
    assert report["parameters_by_module"]["(itself)"] == 3
    assert report["parameters_by_module"]["head"] == 8 * 2 + 2
    assert report["parameters"] == sum(report["parameters_by_module"].values())
    assert report["stand_ins"] == {"Mamba": 2}
    text = command("own_network:with_mamba")[1]
    assert "x, mask (may be left out)" in text
    assert re.search(r"^modules of stand-ins +2 Mamba$", text, re.M)  # functions are not counted


def test_wrappers_are_left_out() -> None:
    wrapped = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    assert network_info._by_module(wrapped) == {"0.0": 9, "0.1": 4}
    assert network_info._by_module(nn.Sequential(nn.Linear(2, 3))) == {"0": 9}
    assert network_info._by_module(nn.Linear(2, 3)) == {"(itself)": 9}
    assert network_info._by_module(nn.ReLU()) == {}


def test_what_a_factory_prints_is_no_result(command: Command) -> None:
    code, out, err = command("own_network:talkative", "--json")
    assert (code, err) == (0, "making\n")
    assert json.loads(out)["parameters"] == 0


def test_an_engine(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    info = replace(INFO, model={"dvmsr.network": "networks:vim"})
    monkeypatch.setattr(engine_file, "read_info", lambda path: info)
    monkeypatch.setattr(engine_file, "read_engine", lambda path: (info, b"plan"))
    (tmp_path / "m.engine").touch()
    code, out, err = command(tmp_path / "m.engine", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["metadata"] == {"dvmsr.network": "networks:vim"}
    assert report["built by"] == info.facts()["built by"]
    assert "networks:vim" in command(tmp_path / "m.engine")[1]


def test_what_is_refused(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_foreign(tmp_path / "m.onnx", "Clip")
    for model in (file, "own_network:enlarge"):
        code, out, err = command(model, "--size", "8x8")
        assert (code, out) == (2, "")
        assert "is another network than DVMSR" in err and "leave out --size" in err
    assert "own_network has no nothing" in command("own_network:nothing")[2]
    monkeypatch.delitem(sys.modules, "dvmsr.runtime.backends.onnxrt.contents", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, out, err = command(file)
    assert (code, out) == (4, "")
    assert "is read with onnx: pip install 'dvmsr[export]'" in err
    assert network_info.of_file(Path("m.pth")) is None
