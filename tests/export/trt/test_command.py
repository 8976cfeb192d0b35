"""`dvmsr-export trt` with the parser and builder of TensorRT for RTX, which need no GPU."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import played_tensorrt
import pytest
import torch
from networks import random_network
from rtx import skip_without_rtx
from tensorrt_library import build as build_plugin

from dvmsr import checkpoint
from dvmsr.config import PRESETS, DVMSRConfig
from dvmsr.errors import DvmsrError, MissingComponentError, ParityError, UsageError
from dvmsr.export import cli, export_onnx
from dvmsr.export.onnx import bodies
from dvmsr.export.plugin import build as plugin_build
from dvmsr.export.trt import build as engine_build
from dvmsr.export.trt import parity as engine_parity
from dvmsr.export.trt import pictures, request, target
from dvmsr.export.trt import run as engine_run
from dvmsr.export.trt.command import parse_batch
from dvmsr.kernels import driver
from dvmsr.model import DVMSR
from dvmsr.runtime.backends.onnxrt import composed
from dvmsr.runtime.backends.onnxrt.network import OnnxNetwork
from dvmsr.runtime.backends.trt import plugin_library, version
from dvmsr.runtime.backends.trt.engine_file import info_path, read_engine
from dvmsr.runtime.backends.trt.profiles import Profile
from dvmsr.runtime.upscaler import Upscaler

pytestmark = pytest.mark.slow

RTX = ["--target", "rtx"]
RTX += [word for at in ("8.6", "8.9", "12.0") for word in ("--compute-capability", at)]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a small network in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(plugin_library.ENVIRONMENT, raising=False)
    path = tmp_path / "net.safetensors"
    checkpoint.save(random_network(), path)
    return path


@pytest.fixture
def rtx(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT for RTX and a compiled plugin."""
    skip_without_rtx()
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(build_plugin("found").pure))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dvmsr-export", "trt", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_official_size(
    rtx: None,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    """All 8 ViMMs of the paper's student, for 16x16 to 1024x1024 and three generations."""
    torch.manual_seed(0)
    checkpoint.save(DVMSR(PRESETS["student"]), Path("official.safetensors"))
    options = [f"--{precision}", "--min", "16x16", "--max", "1024x1024", *RTX]
    assert run(monkeypatch, "official.safetensors", *options, "--json") == 0
    streams = capsys.readouterr()
    assert "building with TensorRT for RTX 1.7.1" in streams.err
    report = json.loads(streams.out)
    print({key: report[key] for key in ("plan_bytes", "build_seconds", "peak_bytes")})
    assert report["built"]
    assert report["compute_capabilities"] == ["8.6", "8.9", "12.0"]
    assert report["plugin_layers"] == 16
    assert report["layers"][precision] > 150
    assert report["precision"] == precision
    assert report["plan_bytes"] > 424_428 * (4 if precision == "fp32" else 2)
    assert report["peak_bytes"] > 100e6

    suffix = "" if precision == "fp32" else f".{precision}"
    info, plan = read_engine(Path(f"official{suffix}.rtx.engine"))
    assert info.profile == Profile((1, 16, 16), (1, 256, 256), (1, 1024, 1024))
    assert info.config == PRESETS["student"]
    assert info.model["dvmsr.checkpoint"] == "official.safetensors"
    assert info.plugin and info.plugin.sha256 == report["plugin"]["sha256"]
    assert len(plan) == report["plan_bytes"]


def test_equal_inputs_build_once(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [small, "--fp16", "--max", "64x64", *RTX]
    assert run(monkeypatch, *options) == 0
    assert capsys.readouterr().out == "net.fp16.rtx.engine\n"
    engine = Path("net.fp16.rtx.engine")
    made = engine.stat().st_mtime_ns
    assert run(monkeypatch, *options) == 0
    assert "is up to date" in capsys.readouterr().err
    assert engine.stat().st_mtime_ns == made
    for other in (["--max", "80x80"], ["--compute-capability", "8.0"], ["--embed-plugin"]):
        assert run(monkeypatch, *options, *other) == 2
        assert "built from other inputs; replace it with --overwrite" in capsys.readouterr().err
    assert engine.stat().st_mtime_ns == made
    assert run(monkeypatch, *options, "--overwrite") == 0
    assert engine.stat().st_mtime_ns != made
    whole = engine.read_bytes()
    engine.write_bytes(whole[:-1])
    assert run(monkeypatch, *options) == 2
    assert (
        "is damaged or of a newer dvmsr; build it again with --overwrite" in capsys.readouterr().err
    )
    engine.write_bytes(whole)
    info_path(engine).unlink()
    assert run(monkeypatch, *options) == 2
    message = capsys.readouterr().err
    assert (
        "it has no net.fp16.rtx.engine.json beside it; build it again with --overwrite" in message
    )
    engine.unlink()
    info_path(engine).write_text("another program's")
    assert run(monkeypatch, *options) == 2
    message = capsys.readouterr().err
    assert "net.fp16.rtx.engine.json exists; replace it with --overwrite" in message
    assert "building" not in message
    assert info_path(engine).read_text() == "another program's"
    assert run(monkeypatch, *options, "--overwrite") == 0
    assert read_engine(engine)[1] == engine.read_bytes()


@pytest.mark.parametrize(
    "config",
    [
        DVMSRConfig(channels=16, depths=(1,), state=4),
        DVMSRConfig(channels=4, depths=(1,), state=20),
        DVMSRConfig(channels=4, depths=(1,), state=4, scale=4),
        *(
            DVMSRConfig(channels=4, depths=(1,), state=4, scale=scale, upsampler="pixelshuffle")
            for scale in (2, 3, 4)
        ),
    ],
)
def test_the_largest_tensor_is_known(config: DVMSRConfig, tmp_path: Path) -> None:
    """By what ONNX Runtime computes."""
    export_onnx(random_network(config), tmp_path / "m.onnx", verify=False)
    network = OnnxNetwork(tmp_path / "m.onnx", "portable", 1)
    names = network.layers()
    values = network.layer_values(np.zeros((1, 3, 16, 16), np.float32), names)
    assert max(value.size for value in values.values()) == 256 * pictures.values_per_pixel(config)


@pytest.mark.parametrize(
    ("options", "pixels"),
    [(["--max", "4096x4370"], 4096 * 4370), (["--batch", "1,1,18"], 18 * 1024**2)],
    ids=["size", "batch"],
)
def test_tensors_that_are_too_large_are_refused_before(
    options: list[str], pixels: int, rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Those of the bundled model have 120 values per pixel."""
    assert run(monkeypatch, "student", *RTX, *options) == 2
    said = capsys.readouterr().err
    assert (
        f"has tensors of {120 * pixels:,} values, and TensorRT takes 2,147,483,647; choose" in said
    )
    assert "of at most 17,895,697 pixels in all" in said
    assert "building" not in said and not list(Path().glob("*.engine*"))


def test_an_engine_stays_up_to_date_when_another_plugin_is_compiled(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [small, "--max", "64x64", "-o", "x.engine", *RTX]
    built = build_plugin("found").pure
    cache = small.parent / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv(plugin_library.ENVIRONMENT)

    def compiled(name: str, seconds: int) -> None:
        folder = plugin_library.cache_folder() / name
        folder.mkdir(parents=True)
        library = folder / "libdvmsr_trt10.so"
        library.write_bytes(built.read_bytes() + name.encode())
        described = plugin_library.PluginLibrary(
            pure=str(library),
            self_registering=None,
            tensorrt_major=10,
            sha256=plugin_library.sha256(library),
            architectures=("75",),
            sources_sha256=plugin_library.sources_sha256(),
            nvcc=None,
        )
        description = folder / plugin_library.DESCRIPTION
        description.write_text(json.dumps(described.to_dict()))
        os.utime(description, (seconds, seconds))

    compiled("first", 1000)
    assert run(monkeypatch, *options) == 0
    compiled("second", 2000)
    assert run(monkeypatch, *options) == 0
    assert "x.engine is up to date" in capsys.readouterr().err
    assert run(monkeypatch, *options, "--overwrite") == 0
    info, _ = read_engine(Path("x.engine"))
    second = plugin_library.cache_folder() / "second/libdvmsr_trt10.so"
    assert info.plugin and info.plugin.sha256 == plugin_library.sha256(second)


def test_the_plan_may_carry_the_plugin(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, small, *RTX, "--max", "64x64", "-o", "a.engine") == 0
    assert run(monkeypatch, small, *RTX, "--max", "64x64", "-o", "b.engine", "--embed-plugin") == 0
    alone, carrying = (read_engine(Path(name))[0] for name in ("a.engine", "b.engine"))
    size = build_plugin("found").pure.stat().st_size
    assert carrying.plan_bytes - alone.plan_bytes >= 0.9 * size
    assert carrying.plugin and carrying.plugin.embedded
    assert alone.plugin and not alone.plugin.embedded


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_without_the_plugin(
    rtx: None,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    export_onnx(random_network(), "net.onnx", precision=precision, verify=False)
    monkeypatch.delenv(plugin_library.ENVIRONMENT)
    options = ["net.onnx", "--no-plugin", *RTX, "--max", "64x64", "-o", "x.engine"]
    assert run(monkeypatch, *options) == 0
    assert "warning: without the plugin" in capsys.readouterr().err
    info, _ = read_engine(Path("x.engine"))
    assert info.plugin is None
    assert info.plugin_layers == 0
    assert info.precision == precision


@pytest.mark.parametrize(
    ("model", "options", "precision"),
    [
        ("student", [], "fp32"),
        ("student", ["--fp16"], "fp16"),
        ("student", ["--bf16"], "bf16"),
        ("student-fp16", [], "fp16"),
    ],
)
def test_the_bundled_model_goes_by_its_name(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch,
    model: str, options: list[str], precision: str,
) -> None:  # fmt: skip
    assert run(monkeypatch, model, *options, *RTX, "--max", "64x64") == 0
    suffix = "" if precision == "fp32" else f".{precision}"
    info, _ = read_engine(Path(f"student{suffix}.rtx.engine"))
    assert info.precision == precision
    assert info.model["dvmsr.checkpoint"] == "dvmsr_x4.safetensors"
    assert Path(info.command[2]).is_file()


@pytest.mark.parametrize("kind", ["onnx", "checkpoint", "inline"])
def test_a_model_that_computes_no_numbers_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Before TensorRT, which is not asked."""
    monkeypatch.setattr(version, "installed_version", lambda target="gpu": "1.7.1.116")
    monkeypatch.setattr(engine_build, "run", lambda *_: pytest.fail("TensorRT was asked"))
    monkeypatch.setattr(plugin_build, "ensure", lambda *_: None)
    network = random_network()
    with torch.no_grad():  # a checkpoint may hold what is beyond half precision, but not NaN
        network.conv_first.weight.mul_(1e6 if kind == "checkpoint" else torch.nan)
    options = ["--fp16"] if kind == "checkpoint" else []
    source = Path("net.safetensors" if kind == "checkpoint" else "net.onnx")
    if kind == "checkpoint":
        checkpoint.save(network, source)
    else:
        export_onnx(network, source, inline=kind == "inline", verify=False)
        options = ["--no-plugin"] if kind == "inline" else []
    assert run(monkeypatch, source, *options, *RTX) == 5
    last = capsys.readouterr().err.splitlines()[-1]
    precision = "fp16" if kind == "checkpoint" else "fp32"
    assert f"{source} computes values in {precision} that are not finite, so no engine" in last
    assert not list(Path().glob("*.engine*"))


def test_a_model_that_a_processor_cannot_compute_is_left_to_tensorrt(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvmsr.runtime.memory.available", lambda: 10)
    export_onnx(random_network(), "net.onnx", verify=False)
    said: list[str] = []
    profile = Profile((1, 16, 16), (1, 16, 16), (1, 16, 16))
    engine_parity.check_finite(Path("net.onnx"), small, profile, said.append)
    (line,) = said
    assert line.startswith(f"warning: the model was not computed on the processor first ({small} ")


def test_a_model_of_one_size(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_onnx(random_network(), "net.onnx", static_shape=(2, 20, 30), verify=False)
    assert run(monkeypatch, "net.onnx", *RTX, "--max", "64x64") == 2
    assert "net.onnx takes 2x20x30 alone" in capsys.readouterr().err
    assert run(monkeypatch, "net.onnx", *RTX) == 0
    info, _ = read_engine(Path("net.rtx.engine"))
    assert info.profile == Profile((2, 20, 30), (2, 20, 30), (2, 20, 30))


def test_a_model_of_strips_is_refused(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_onnx(random_network(), "net.onnx", streaming=True, verify=False)
    assert run(monkeypatch, "net.onnx", *RTX) == 2
    assert "net.onnx takes strips of rows" in capsys.readouterr().err


def test_a_model_without_functions_needs_no_plugin(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_onnx(random_network(), "net.onnx", inline=True, verify=False)
    assert run(monkeypatch, "net.onnx", *RTX) == 2
    assert "net.onnx has its operators written out" in capsys.readouterr().err
    assert run(monkeypatch, "net.onnx", "--no-plugin", *RTX, "--max", "64x64") == 0
    assert read_engine(Path("net.rtx.engine"))[0].plugin is None


def with_channel_major_scans(model: onnx.ModelProto) -> int:
    """Has the scans read channel-major tensors, made by transposes; how many there are."""
    orders = {0: [0, 2, 1], 1: [0, 2, 1], 3: [0, 2, 3, 1], 4: [0, 2, 3, 1], 8: [0, 2, 1]}
    nodes = list(model.graph.node)
    scans = [node for node in nodes if node.op_type == "SelectiveScan"]
    for scan in scans:
        y = scan.output[0]
        made = []
        for i, order in orders.items():
            name = f"{y}_{i}"
            made.append(onnx.helper.make_node("Transpose", [scan.input[i]], [name], perm=order))
            scan.input[i] = name
        scan.output[0] = f"{y}_channels"
        scan.attribute.append(onnx.helper.make_attribute("channel_major", 1))
        back = onnx.helper.make_node("Transpose", [scan.output[0]], [y], perm=[0, 2, 1])
        at = next(i for i, node in enumerate(nodes) if node is scan)
        nodes[at : at + 1] = [*made, scan, back]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    bodies.attach(model)
    return len(scans)


@pytest.mark.parametrize("plugin", [True, False], ids=["plugin", "bodies"])
def test_a_model_of_channel_major_scans(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, plugin: bool
) -> None:
    """The plugin reads token-major tensors alone."""
    export_onnx(random_network(), "net.onnx", verify=False)
    model = onnx.load("net.onnx")
    composed.inline(model)
    scans = with_channel_major_scans(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "channels.onnx")
    options = [*RTX, "--max", "64x64", *([] if plugin else ["--no-plugin"])]
    assert run(monkeypatch, "channels.onnx", *options) == 0
    info, _ = read_engine(Path("channels.rtx.engine"))
    assert info.plugin_layers == (2 * scans if plugin else 0)  # as many convolutions


def change_version(node: onnx.NodeProto) -> None:
    (attribute,) = [a for a in node.attribute if a.name == "plugin_version"]
    attribute.s = b"2"


def test_a_model_that_does_not_fit_the_plugin(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_onnx(random_network(), "net.onnx", verify=False)
    model = onnx.load("net.onnx")
    composed.inline(model)
    change_version(next(node for node in model.graph.node if node.op_type == "SelectiveScan"))
    onnx.save(model, "net.onnx")
    assert run(monkeypatch, "net.onnx", *RTX) == 5
    streams = capsys.readouterr()
    assert "Plugin not found" in streams.err
    assert streams.err.splitlines()[-1].startswith("error: TensorRT could not build the engine (")
    assert {path.name for path in Path().iterdir()} == {"net.onnx", "net.safetensors"}


def test_a_graph_in_another_type_than_it_says(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_onnx(random_network(), "net.onnx", verify=False)
    model = onnx.load("net.onnx")
    (said,) = [prop for prop in model.metadata_props if prop.key == "dvmsr.precision"]
    said.value = "fp16"
    onnx.save(model, "net.onnx")
    assert run(monkeypatch, "net.onnx", *RTX, "--fp16") == 1
    assert "would not compute in fp16, so nothing was written" in capsys.readouterr().err
    assert not list(Path().glob("*.engine*"))


def test_a_library_that_is_no_plugin(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("libdvmsr_trt10.so").write_bytes(b"not a library")
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(Path("libdvmsr_trt10.so").resolve()))
    assert run(monkeypatch, small, *RTX) == 4
    assert "cannot be loaded" in capsys.readouterr().err


def test_a_plugin_of_another_version_of_tensorrt(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("libdvmsr_trt11.so").write_bytes(b"")
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(Path("libdvmsr_trt11.so").resolve()))
    assert run(monkeypatch, small, *RTX) == 4
    assert "is for TensorRT 11, not 10" in capsys.readouterr().err


def test_a_missing_plugin_is_compiled(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    skip_without_rtx()
    monkeypatch.setenv("XDG_CACHE_HOME", str(small.parent / "cache"))
    monkeypatch.setenv("CUDACXX", "nowhere/nvcc")
    assert run(monkeypatch, small, *RTX) == 4
    assert 'pip install "dvmsr[plugin]"' in capsys.readouterr().err
    asked: list[object] = []

    def build(major: int, architectures: list[str]) -> plugin_library.PluginLibrary:
        asked.append((major, architectures))
        library = str(build_plugin("found").pure)
        return plugin_library.PluginLibrary(library, None, major, "ab", None, None, None)

    monkeypatch.setattr(plugin_build, "build", build)
    monkeypatch.delenv("CUDACXX")
    assert run(monkeypatch, small, *RTX, "--max", "64x64") == 0
    assert asked == [(10, ["86", "89", "120"])]


def test_a_crash_of_tensorrt_is_an_error(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("crash.py").write_text("import os, sys\nprint('last', file=sys.stderr)\nos.abort()\n")
    popen = subprocess.Popen
    monkeypatch.setattr(
        engine_run.subprocess,
        "Popen",
        lambda command, **options: popen([sys.executable, "crash.py"], **options),
    )
    assert run(monkeypatch, small, *RTX) == 1
    message = capsys.readouterr().err
    assert "TensorRT: last" in message
    assert f"TensorRT crashed ({signal.Signals.SIGABRT.name})" in message
    assert not list(Path().glob("*.engine*"))


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ("full", DvmsrError, "has no space left for building; make room, or set TMPDIR"),
        ("missing", MissingComponentError, r"does not load \(why\); reinstall it"),
    ],
    ids=["full disk", "missing library"],
)
def test_the_end_of_the_worker_has_a_category(
    event: str, kind: type[DvmsrError], message: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    program = f'print(\'{{"event": "{event}", "reason": "why"}}\')'
    command = [sys.executable, "-c", program]
    monkeypatch.setattr(engine_run.child_python, "command", lambda *_: command)
    with pytest.raises(DvmsrError, match=message) as raised:
        engine_run._listen(tmp_path, dict(os.environ))
    assert type(raised.value) is kind


@pytest.mark.parametrize("name", ["model.onnx", "job.json"])
def test_a_full_disk_before_the_worker(
    name: str, rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(engine_run.Path, "write_bytes", full)
    assert run(monkeypatch, small, *RTX) == 1
    assert "has no space left for building; make room, or set TMPDIR" in capsys.readouterr().err
    assert not list(Path().glob("*.engine*"))


@pytest.fixture
def played(rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """TensorRT's own part played by TensorRT for RTX; gathers what would be compared."""
    layers = [("scan", "PluginV3"), ("conv1d", "PluginV3"), ("conv_first", "CaskConvolution")]
    played_tensorrt.play(monkeypatch, {"input": (1, 3, 64, 64)}, layers)
    compared: list[object] = []
    monkeypatch.setattr(engine_parity, "check", lambda *args: compared.append(args))
    return compared


def test_for_the_gpu_at_hand(
    played: list[object], small: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    compared = played
    options = ["--fp16", "--max", "64x64", "--workspace", "256", "--timing-cache", "cache"]
    assert run(monkeypatch, small, *options) == 0
    assert "building with TensorRT 10.14.1.48 on A GPU" in capsys.readouterr().err
    info, _ = read_engine(Path("net.fp16.engine"))
    assert (info.gpu, info.compute_capabilities) == ("A GPU", ("8.9",))
    assert info.layers == {"fp16": 3}
    assert Path("cache").stat().st_size > 0
    assert len(compared) == 1
    assert run(monkeypatch, small, *options) == 0
    assert len(compared) == 1, "it was there already"


@pytest.mark.parametrize("refused", [False, True])
def test_the_plan_that_carries_the_plugin_is_inspected(
    refused: bool, played: list[object], small: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With nothing registered that TensorRT would register again; if it refuses, that is said."""
    if refused:
        module = Path("link/tensorrt.py")
        module.write_text(module.read_text().replace("return Engine(plan)", "return None"))
    status = run(monkeypatch, small, "--fp16", "--max", "64x64", "--embed-plugin")
    said = capsys.readouterr().err
    if refused:
        assert status == 1 and "could not build the engine (Could not deserialize engine" in said
        assert "Traceback" not in said and not list(Path().glob("*.engine*"))
    else:
        assert status == 0, said
        info, _ = read_engine(Path("net.fp16.engine"))
        assert info.layers == {"fp16": 3} and info.plugin and info.plugin.embedded
        assert info.host_code == "the plugin library and a runtime of TensorRT"
        assert "--version-compatible" in info.rebuild


class Played:
    """An engine's or a model's network."""

    scale, config, precision, model = 2, random_network().config, "fp16", "x"
    backend = computes = "native"

    def __init__(self, error: float) -> None:
        self.error = error
        self.network = lambda image: image.repeat(2, 2).repeat(2, 3) + self.error


@pytest.mark.parametrize("error", [1e-4, 1e-2])
def test_an_engine_is_compared(small: Path, monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    both = {"x.engine": Played(error), str(small): Played(0)}
    trusted: list[Path] = []

    def from_file(path: Path, trust_engine: bool = False) -> Played:
        trusted.extend([path] * trust_engine)
        return both[str(path)]

    monkeypatch.setattr(Upscaler, "from_file", from_file)
    said: list[str] = []
    arguments = (Path("x.engine"), small, Profile((1, 16, 100), (1, 64, 128), (1, 80, 128)))
    if error > 1e-3:
        with pytest.raises(ParityError, match=r"differs from .* 40\.0 dB, where at least 60 dB"):
            engine_parity.check(*arguments, said.append)
    else:
        engine_parity.check(*arguments, said.append)
    assert said == [
        f"engine against native at 1x80x128: max abs {error:.1e}, {-20 * np.log10(error):.1f} dB"
    ]
    assert trusted == [Path("x.engine")]  # what was just built here may carry code


def test_a_comparison_that_is_impossible_is_mentioned(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: Path, trust_engine: bool = False) -> None:
        raise MissingComponentError("no nvcc")

    monkeypatch.setattr(Upscaler, "from_file", missing)
    said: list[str] = []
    profile = Profile((1, 16, 16), (1, 16, 16), (1, 16, 16))
    engine_parity.check(Path("x.engine"), small, profile, said.append)
    assert said == [f"warning: the engine was not compared with {small} (no nvcc)"]


def test_missing_libraries_are_named(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(version, "installed_version", lambda target="gpu": None)
    assert run(monkeypatch, small, "--fp16") == 4
    message = capsys.readouterr().err
    assert 'TensorRT is not installed; pip install "dvmsr[gpu]"' in message
    assert 'pip install "dvmsr[rtx]" and add --target rtx' in message
    assert run(monkeypatch, small, "--fp16", "--target", "rtx") == 4
    expected = 'TensorRT for RTX is not installed; pip install "dvmsr[rtx]"'
    assert expected in capsys.readouterr().err
    monkeypatch.setattr(version, "installed_version", lambda target="gpu": "9.9.9")
    monkeypatch.setattr(target.importlib.util, "find_spec", lambda name: name)
    assert run(monkeypatch, small, "--target", "rtx") == 4
    assert "known to work with 1.7.1 alone" in capsys.readouterr().err


def test_no_gpu_is_named(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(version, "installed_version", lambda target="gpu": "10.14.1.48")
    monkeypatch.setattr(target.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(driver, "first", lambda: None)
    assert run(monkeypatch, small, "--fp16") == 4
    assert "there is none that CUDA can use" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--fp16", "--fp32"],
        ["--target", "tpu"],
        ["--compute-capability", "8.9"],
        ["--target", "rtx", "--compute-capability", "9.0"],
        ["--target", "rtx", "--timing-cache", "x"],
        ["--target", "rtx", "--version-compatible"],
        ["--no-plugin", "--embed-plugin"],
        ["--timing-cache", "nowhere/x"],
        ["--min", "16"],
        ["--max", "0x16"],
        ["--batch", "1,2"],
        ["--workspace", "0"],
        ["surplus"],
        ["--target", "rtx", "--compute-capability", "8.6", "8.9"],
    ],
    ids=" ".join,
)
def test_usage_errors(
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    assert run(monkeypatch, small, *options) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_bad_models(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_onnx(random_network(), "net.onnx", verify=False)
    assert run(monkeypatch, "net.onnx", "--fp16") == 2
    assert "net.onnx computes in fp32; name its checkpoint" in capsys.readouterr().err
    assert run(monkeypatch, "missing.onnx") == 2
    Path("bad.onnx").write_bytes(b"nonsense")
    assert run(monkeypatch, "bad.onnx") == 5
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sizes", "profile"),
    [
        ({}, ((1, 16, 16), (1, 256, 256), (1, 1024, 1024))),
        ({"max": (64, 2000)}, ((1, 16, 16), (1, 64, 256), (1, 64, 2000))),
        ({"min": (300, 8)}, ((1, 300, 8), (1, 300, 256), (1, 1024, 1024))),
        ({"opt": (8, 2000)}, ((1, 8, 16), (1, 8, 2000), (1, 1024, 2000))),
        ({"batch": (1, 2, 4)}, ((1, 16, 16), (2, 256, 256), (4, 1024, 1024))),
    ],
    ids=str,
)
def test_profiles_follow_from_what_is_given(sizes: dict[str, Any], profile: Any) -> None:
    asked = request.Request(Path("x.onnx"), **sizes)
    assert pictures.profile(asked, None) == Profile(*profile)


def test_profiles_must_grow() -> None:
    asked = request.Request(Path("x.onnx"), min=(300, 300), max=(200, 200))
    with pytest.raises(UsageError, match="height must be at least 1 and grow"):
        pictures.profile(asked, None)


def test_words_of_the_command_line() -> None:
    assert parse_batch("1,2,4") == (1, 2, 4)
    assert parse_batch("2") == (2, 2, 2)


def test_the_command_that_builds_again(
    rtx: None, small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    """It builds the same engine in its place, from another folder."""
    options = ["--fp16", "--max", "64x80", "--batch", "1,1,2", "--embed-plugin", *RTX]
    assert run(monkeypatch, small.name, *options, "-o", "x.engine", "--json") == 0
    engine = Path("x.engine").resolve()
    info, _ = read_engine(engine)
    made = engine.stat().st_mtime_ns
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    program, subcommand, *arguments = info.command
    assert (program, subcommand) == ("dvmsr-export", "trt")
    assert run(monkeypatch, *arguments) == 0
    again, _ = read_engine(engine)
    assert engine.stat().st_mtime_ns != made
    assert again.key == info.key
    assert again.command == info.command
