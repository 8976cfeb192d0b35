"""`dvmsr-export trt` of networks of others, with the parser and builder of TensorRT for RTX."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mamba_blocks as blocks
import mamba_patterns as networks
import onnx
import played_tensorrt
import pytest
import torch
from onnx import parser
from rtx import skip_without_rtx
from tensorrt_library import build as build_plugin
from torch import Tensor, nn

from dvmsr.export import cli, export_network
from dvmsr.export.trt import layers, network_parity
from dvmsr.export.trt.layers import Expected
from dvmsr.runtime.backends.trt import plugin_library
from dvmsr.runtime.backends.trt.engine_file import read_engine
from dvmsr.runtime.backends.trt.profiles import InputProfile

pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow

RTX = ["--target", "rtx", "--compute-capability", "8.6"]
IMAGE = {"x": {0: "batch", 2: "height", 3: "width"}}
HEIGHT = {"x": {0: "batch", 2: "height"}}


class Many(nn.Module):
    """Inputs of every type, one of which is not used; a transposed convolution; whole numbers and
    truth values among the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.mixer = networks.Gated()
        self.larger = nn.ConvTranspose1d(8, 8, 2, 2)

    def forward(self, ids: Tensor, mask: Tensor, steps: Tensor, flag: Tensor) -> dict[str, Tensor]:
        x = self.embedding(ids) + 0.1 * steps.unsqueeze(-1).float()
        x = torch.where(mask.unsqueeze(-1), x, torch.zeros_like(x))
        y = self.larger(self.mixer(x)["tokens"].mT).mT
        return {"y": y, "best": y.argmax(-1), "positive": y > 0}


def image(*sizes: int) -> dict[str, Tensor]:
    return {"x": torch.rand(sizes)}


TOKENS = {"tokens": torch.rand(2, 9, 8), "scale": torch.tensor(0.5)}
MANY = {
    "ids": torch.randint(0, 11, (2, 9)),
    "mask": torch.rand(2, 9) > 0.3,
    "steps": torch.randint(0, 5, (2, 9), dtype=torch.int32),
    "flag": torch.tensor(True),
}
SEQUENCES = {name: {0: "batch", 1: "length"} for name in ("ids", "mask", "steps")}
PATTERNS: dict[str, tuple[Callable[[], nn.Module], dict[str, Tensor], Any, int]] = {
    "four directions": (networks.SS2D, image(1, 6, 12, 8), IMAGE, 1),
    "one state": (lambda: networks.SS2D(state=1), image(1, 6, 12, 8), IMAGE, 1),
    "windows": (lambda: networks.Windows(False), image(1, 6, 16, 16), HEIGHT, 1),
    "two directions": (networks.Gated, TOKENS, {"tokens": {0: "batch", 1: "length"}}, 4),
    "many inputs": (Many, MANY, SEQUENCES, 4),
    "mixers": (blocks.Forms, {"x": torch.rand(2, 9, 6)}, {"x": {0: "batch", 1: "length"}}, 7),
}
"""Network, example, dynamic axes, and how many of dvmsr's operators it has."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT for RTX and a compiled plugin; an empty current folder."""
    skip_without_rtx()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(build_plugin("found").pure))


@functools.cache
def exported(pattern: str, precision: str, opset: int) -> bytes:
    torch.manual_seed(0)
    module, example, dynamic, _ = PATTERNS[pattern]
    export_network(
        module(), example, "net.onnx", dynamic, opset, verify=False, progress=lambda line: None,
        source="my:net", precision=precision,
    )  # fmt: skip
    return Path("net.onnx").read_bytes()


def export(pattern: str, precision: str = "fp32", opset: int = 18) -> None:
    """Writes `net.onnx`."""
    Path("net.onnx").write_bytes(exported(pattern, precision, opset))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object, options: Sequence[str] = RTX) -> int:
    monkeypatch.setattr(sys, "argv", ["dvmsr-export", "trt", *map(str, arguments), *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("pattern", "precision"),
    [
        ("four directions", "fp32"),
        ("four directions", "fp16"),
        ("one state", "fp32"),
        ("windows", "fp16"),
        ("two directions", "fp32"),
        ("two directions", "fp16"),
        ("many inputs", "fp16"),
        ("mixers", "fp32"),
        ("mixers", "fp16"),
    ],
)
def test_patterns(
    pattern: str, precision: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    export(pattern, precision)
    _, example, dynamic, operators = PATTERNS[pattern]
    expected: list[Expected] = []
    check = layers.check_network
    monkeypatch.setattr(
        layers, "check_network", lambda got, wanted: (expected.append(wanted), check(got, wanted))
    )
    assert run(monkeypatch, "net.onnx", "-o", "x.engine", "--json") == 0
    streams = capsys.readouterr()
    assert "warning" not in streams.err and "TensorRT: " not in streams.err
    report = json.loads(streams.out)
    info, plan = read_engine(Path("x.engine"))
    assert len(plan) == report["plan_bytes"] > 1000
    assert info.precision == precision
    assert info.plugin_layers == operators
    assert info.layers[precision] > 20
    assert info.model["dvmsr.network"] == "my:net" and not info.is_dvmsr
    assert {name: profile.opt for name, profile in info.profiles.items()} == {
        name: tuple(tensor.shape) for name, tensor in example.items()
    }
    for name, axes in dynamic.items():
        low, usual, high = vars(info.profiles[name]).values()
        for axis, label in axes.items():
            half = usual[axis] // 2 if usual[axis] % 16 == 0 else usual[axis]
            assert low[axis] == (1 if label == "batch" else half)
            assert high[axis] == 2 * usual[axis]
    if precision == "fp16":
        assert expected[0].products and len(expected[0].products) >= 2


def test_names_and_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export("two directions")
    options = ["--min", "tokens:1x1x8", "--opt", "tokens:1x64x8", "--max", "tokens:2x256x8"]
    assert run(monkeypatch, "net.onnx", *options) == 0
    streams = capsys.readouterr()
    assert streams.out == "net.rtx.engine\n"
    assert "the engine will take" not in streams.err  # all sizes were given
    info, _ = read_engine(Path("net.rtx.engine"))
    assert info.profiles == {
        "tokens": InputProfile((1, 1, 8), (1, 64, 8), (2, 256, 8)),
        "scale": InputProfile((), (), ()),
    }
    assert info.facts()["takes"] == "tokens 1x1x8 to 2x256x8, tuned for 1x64x8; scale one value"
    assert run(monkeypatch, "net.onnx", *options) == 0
    assert "net.rtx.engine is up to date" in capsys.readouterr().err
    assert run(monkeypatch, "net.onnx", *options, "--max", "tokens:2x300x8") == 2
    assert "was built from other inputs" in capsys.readouterr().err
    _, _, *arguments = info.command
    assert run(monkeypatch, *arguments[: arguments.index("--target")], *arguments[-3:]) == 0
    assert read_engine(Path("net.rtx.engine"))[0].key == info.key


@pytest.mark.parametrize("pattern", ["four directions", "two directions"])
def test_without_the_plugin(
    pattern: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operators' bodies compute in FP32 on purpose."""
    export(pattern, "fp16")
    assert run(monkeypatch, "net.onnx", "--no-plugin", "-o", "x.engine") == 0
    assert "warning: without the plugin every layer scans" in capsys.readouterr().err
    info, _ = read_engine(Path("x.engine"))
    assert (info.plugin, info.plugin_layers, info.precision) == (None, 0, "fp16")


def test_the_newest_opset_of_an_export_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    export("one state", opset=24)
    assert run(monkeypatch, "net.onnx", "-o", "x.engine") == 0


def test_the_plan_may_carry_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    export("one state")
    assert run(monkeypatch, "net.onnx", "-o", "x.engine", "--embed-plugin") == 0
    info, _ = read_engine(Path("x.engine"))
    assert info.host_code == "the plugin library"


def test_an_input_whose_values_are_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["":18]>
        g (float[N,6] x, int64[2] size) => (float[A,B] y) { y = Reshape(x, size) }"""
    )
    onnx.save(model, "net.onnx")
    assert run(monkeypatch, "net.onnx", "--no-plugin", "--opt", "x:4x6") == 5
    last = capsys.readouterr().err.splitlines()[-1]
    assert "depend on the values of the input size; make that a constant and export it" in last
    assert not list(Path().glob("*.engine*"))


@pytest.mark.parametrize("option", ["--min", "--opt", "--max"])
def test_sizes_at_which_the_network_does_not_fit_together(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TensorRT itself builds an engine that fails later, but for the usual size."""
    export("windows", "fp16")
    sizes = {"--min": "1x6x9x16", "--opt": "1x6x18x16", "--max": "1x6x33x16"}
    assert run(monkeypatch, "net.onnx", option, sizes[option]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot compute the model with the sizes of {option} (IShuffleLayer node_view: " in last
    assert last.endswith("); choose others")
    assert not list(Path().glob("*.engine*"))


def test_a_product_that_is_half_in_the_file_must_be_in_the_engine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export("two directions", "fp16")
    find = "dvmsr.export.trt.network.NetworkSource.products"
    monkeypatch.setattr(find, lambda *_: ("node_MatMul_2",))
    real = layers.check_network

    def one_in_full(found: list[dict[str, str]], expected: Expected) -> None:
        changed = [
            {**layer, "type": "FLOAT"} if layer["name"] == "node_MatMul_2" else layer
            for layer in found
        ]
        assert changed != found
        real(changed, expected)

    monkeypatch.setattr(layers, "check_network", one_in_full)
    assert run(monkeypatch, "net.onnx", "-o", "x.engine") == 1
    assert "node_MatMul_2 would not compute in fp16, so nothing was" in capsys.readouterr().err
    assert not list(Path().glob("*.engine*"))


def test_for_the_gpu_at_hand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine is inspected with shapes of all its inputs and compared before it is there."""
    export("two directions", "fp16")
    inspected = [*((f"scan {i}", "PluginV3") for i in range(4)), ("node_MatMul_2", "gemm")]
    played_tensorrt.play(monkeypatch, {"tokens": (2, 9, 8), "scale": ()}, inspected)
    compared: list[object] = []

    def check(engine: Path, *rest: object) -> None:
        assert read_engine(engine)[0].precision == "fp16"
        assert not Path("x.engine").exists()
        compared.append(rest[0])

    monkeypatch.setattr(network_parity, "check", check)
    assert run(monkeypatch, "net.onnx", "-o", "x.engine", options=()) == 0
    assert compared == [Path("net.onnx")]
    info, _ = read_engine(Path("x.engine"))
    assert (info.gpu, info.layers) == ("A GPU", {"fp16": 5})
