"""Networks of others in standard operators alone, in ONNX Runtime and OpenVINO, against PyTorch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import mamba_blocks as blocks
import numpy as np
import onnx
import pytest
import torch
from mamba_patterns import SS2D
from numpy.typing import NDArray
from torch import nn

from dvmsr.export import cli, export_network
from dvmsr.export.network.export import NetworkReport
from dvmsr.runtime import open_model


def mixer() -> nn.Module:
    return blocks.mamba(True)


IMAGE = {0: "batch", 2: "height", 3: "width"}
NETWORKS = {
    "scans": (SS2D, "x", (1, 6, 8, 6), IMAGE, (2, 6, 5, 7)),
    "mixer": (mixer, "hidden_states", (1, 9, 6), {0: "batch", 1: "tokens"}, (2, 5, 6)),
}
LIMITS = {"fp32": 1e-5, "fp16": 1e-2}


@dataclass(frozen=True)
class Inlined:
    path: Path
    report: NetworkReport
    given: dict[str, NDArray[np.floating]]
    """Of other sizes than the example's."""
    expected: NDArray[np.float32]

    def check(self, found: NDArray[np.floating]) -> None:
        error = np.abs(found.astype(np.float32) - self.expected).max()
        assert error < LIMITS[self.report.precision] * np.abs(self.expected).max()


@pytest.fixture(scope="module", params=itertools.product(NETWORKS, LIMITS), ids="-".join)
def inlined(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Inlined:
    kind, precision = request.param
    make, name, example, axes, other = NETWORKS[kind]
    torch.manual_seed(0)
    module, x = make().eval(), torch.randn(other)
    report = export_network(
        module,
        (torch.randn(example),),
        path := tmp_path_factory.mktemp(kind) / "n.onnx",
        {name: axes},
        precision=precision,
        inline=True,
        progress=lambda _: None,
    )
    given = {name: x.numpy().astype("float16" if precision == "fp16" else "float32")}
    with torch.inference_mode():
        return Inlined(path, report, given, module(x).numpy())


def test_it_is_verified_at_every_size_without_dvmsrs_operators(inlined: Inlined) -> None:
    assert {check.backend for check in inlined.report.checks} == {"portable"}
    assert len({str(check.sizes) for check in inlined.report.checks}) > 3
    model = onnx.load(inlined.path)
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions
    assert [entry.domain for entry in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}


def test_onnx_runtime_alone_runs_it(inlined: Inlined) -> None:
    network = open_model(inlined.path)
    assert network.backend == "portable"
    inlined.check(next(iter(network(**inlined.given).values())))


def test_openvino_runs_it(inlined: Inlined) -> None:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO: pip install openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    inlined.check(openvino.Core().compile_model(inlined.path, "CPU", exact)(inlined.given)[0])


def test_the_command_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import torch\n\n\ndef relu():\n    return torch.nn.ReLU()\n"
    (tmp_path / "inlined_networks.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    arguments = ["onnx", "inlined_networks:relu", "--input", "1x4", "--inline", "--fp16"]
    monkeypatch.setattr("sys.argv", ["dvmsr-export", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    out, told = capsys.readouterr()
    assert out == "relu.fp16.inline.onnx\n"
    assert "portable: " in told
    assert "native" not in told
