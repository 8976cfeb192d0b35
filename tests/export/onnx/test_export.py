"""`export_onnx`: what is written, and what is not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import random_network
from shared import official_weights, requires_shared

import dvmsr
from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.errors import (
    DvmsrError,
    IncompatibleModelError,
    MissingComponentError,
    ParityError,
    UsageError,
)
from dvmsr.export import export_onnx
from dvmsr.export.onnx import export as onnx_export
from dvmsr.export.onnx import graph, verify
from dvmsr.export.onnx.parity import Parity
from dvmsr.kernels import cpu
from dvmsr.runtime.parity.limits import FP16_MIN_PSNR, FP32_MAX_ABS

BACKENDS = ["portable"] if cpu.library_path() is None else ["native", "portable"]


def silent(line: str) -> None:
    pass


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_checkpoint_becomes_a_verified_file(tmp_path: Path, precision: str) -> None:
    network = random_network(spread=0.02)  # within what half precision can do
    source, target = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    checkpoint.save(network, source)
    lines: list[str] = []
    report = export_onnx(source, target, precision=precision, progress=lines.append)
    assert sorted(tmp_path.iterdir()) == [target, source]
    data = target.read_bytes()
    assert report.sha256 == hashlib.sha256(data).hexdigest()
    assert report.bytes == len(data)
    assert report.nodes["MambaMixer"] == 1
    assert [(p.backend, p.shape) for p in report.parity] == [
        (backend, shape) for backend in BACKENDS for shape in verify.SHAPES
    ]
    assert all(p.passes(precision) for p in report.parity)
    assert json.loads(json.dumps(report.to_dict()))["path"] == str(target)
    for backend in BACKENDS:
        assert any(line.startswith(backend) for line in lines)

    props = metadata(target)
    assert DVMSRConfig.from_json(props.pop("dvmsr.config")) == network.config
    assert len(props.pop("dvmsr.git_revision")) >= len("unknown")
    assert props == {
        "dvmsr.scale": "2",
        "dvmsr.colour_order": "RGB",
        "dvmsr.range": "0..1",
        "dvmsr.checkpoint": "net.safetensors",
        "dvmsr.checkpoint_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "dvmsr.precision": precision,
        "dvmsr.version": dvmsr.__version__,
    }


def test_a_network_in_memory_is_left_as_it_is(tmp_path: Path) -> None:
    network = random_network().half().train()
    target = tmp_path / "net.onnx"
    export_onnx(network, target, progress=silent)
    assert network.training
    assert next(network.parameters()).dtype == torch.float16
    assert metadata(target)["dvmsr.checkpoint"] == "unknown"


def test_static_shape_is_verified_at_its_size(tmp_path: Path) -> None:
    report = export_onnx(
        random_network(), tmp_path / "a.onnx", static_shape=(2, 5, 7), progress=silent
    )
    assert {p.shape for p in report.parity} == {(2, 5, 7)}
    assert report.static_shape == (2, 5, 7)


def test_without_verification(tmp_path: Path) -> None:
    report = export_onnx(random_network(), tmp_path / "a.onnx", verify=False, progress=silent)
    assert report.parity == ()
    assert (tmp_path / "a.onnx").exists()


def test_missing_native_operators_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "library_path", lambda: None)
    lines: list[str] = []
    report = export_onnx(random_network(), tmp_path / "a.onnx", progress=lines.append)
    assert {p.backend for p in report.parity} == {"portable"}
    assert any("native operators not verified" in line for line in lines)


def test_unusable_native_operators_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libdvmsr_ops.so"
    library.write_text("not a library")
    monkeypatch.setattr(cpu, "library_path", lambda: library)
    with pytest.raises(MissingComponentError, match=r"libdvmsr_ops\.so cannot be loaded"):
        export_onnx(random_network(), tmp_path / "a.onnx", progress=silent)
    assert list(tmp_path.iterdir()) == [library]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("wrong", [0.3, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "key", ["conv_first.weight", "layers.0.residual_group.blocks.0.mixer.in_proj.weight"]
)
def test_a_wrong_weight_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, wrong: float, key: str
) -> None:
    build = graph.build_model

    def build_wrongly(config: DVMSRConfig, weights: graph.Weights, *rest: object) -> object:
        tampered = np.copy(weights[key])
        tampered.flat[0] += wrong
        return build(config, {**weights, key: tampered}, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(graph, "build_model", build_wrongly)
    with pytest.raises(ParityError, match=r"a\.onnx was not written"):
        export_onnx(random_network(), tmp_path / "a.onnx", precision=precision, progress=silent)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.onnx"
    target.write_text("precious")
    failing = Parity("native", (1, 1, 1), 1.0, 0.0)
    monkeypatch.setattr(verify, "verify", lambda *_: [failing])
    with pytest.raises(ParityError):
        export_onnx(random_network(), target, overwrite=True, progress=silent)
    assert target.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    target = tmp_path / "a.onnx"
    target.write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        export_onnx(random_network(), target, progress=silent)
    assert target.read_text() == "precious"
    export_onnx(random_network(), target, verify=False, overwrite=True, progress=silent)
    onnx.checker.check_model(str(target))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int8"}, "fp32, fp16"),
        ({"opset": 16}, "from 17 to 24"),
        ({"opset": 25}, "from 17 to 24"),
        ({"static_shape": (1, 0, 4)}, "batch, height and width"),
        ({"path": "a.pth"}, r"\.onnx"),
        ({"path": "nowhere/a.onnx"}, "nowhere is not a folder; create it"),
        ({"path": "folder.onnx"}, "exists and is not a file"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    (tmp_path / "folder.onnx").mkdir()
    path = tmp_path / str(arguments.pop("path", "a.onnx"))
    with pytest.raises(UsageError, match=message):
        export_onnx(random_network(), path, progress=silent, **arguments)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["folder.onnx"]


def test_bad_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(DvmsrError, match=r"missing\.pth"):
        export_onnx(tmp_path / "missing.pth", tmp_path / "a.onnx", progress=silent)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(IncompatibleModelError, match=r"other\.pth"):
        export_onnx(tmp_path / "other.pth", tmp_path / "a.onnx", progress=silent)
    assert not (tmp_path / "a.onnx").exists()


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_bytes(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(DvmsrError, match=r"a\.onnx cannot be written \(No space left on device\)"):
        export_onnx(random_network(), tmp_path / "a.onnx", progress=silent)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingComponentError, match=r'pip install "dvmsr\[export\]"'):
        export_onnx(random_network(), tmp_path / "a.onnx", progress=silent)


def test_a_runtime_that_cannot_read_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise IncompatibleModelError("opset 24 is under development")

    monkeypatch.setattr(verify, "open_onnx", refuse)
    with pytest.raises(IncompatibleModelError, match="choose a lower opset or upgrade it"):
        export_onnx(random_network(), tmp_path / "a.onnx", opset=24, progress=silent)
    assert list(tmp_path.iterdir()) == []


def test_revision_is_that_of_our_own_checkout_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lib" / "dvmsr"
    package.mkdir(parents=True)
    monkeypatch.setattr(dvmsr, "__file__", str(package / "__init__.py"))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert onnx_export.git_revision() == "unknown"


@pytest.mark.parametrize(
    ("precision", "max_abs", "psnr", "passes"),
    [
        ("fp32", FP32_MAX_ABS, 20.0, True),
        ("fp32", FP32_MAX_ABS * 1.01, 90.0, False),
        ("fp32", float("nan"), float("nan"), False),
        ("fp16", 1.0, FP16_MIN_PSNR, True),
        ("fp16", 0.0, FP16_MIN_PSNR - 0.01, False),
        ("fp16", float("nan"), float("nan"), False),
    ],
)
def test_limits(precision: str, max_abs: float, psnr: float, passes: bool) -> None:
    assert Parity("native", (1, 1, 1), max_abs, psnr).passes(precision) is passes


def test_comparison() -> None:
    image, zeros = np.zeros((1, 3, 2, 2), np.float32), np.zeros((1, 3, 4, 4), np.float32)
    equal = verify.compare("native", image, zeros, zeros)
    assert (equal.max_abs, equal.psnr) == (0.0, float("inf"))
    off = verify.compare("native", image, zeros + np.float32(0.1), zeros)
    assert off.max_abs == pytest.approx(0.1)
    assert off.psnr == pytest.approx(20.0, abs=1e-3)
    assert not verify.compare("native", image, zeros[:, :, :2], zeros).passes("fp32")
    assert dataclasses.replace(equal, psnr=off.psnr) != off


@pytest.mark.slow
@requires_shared
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_official_student(tmp_path: Path, precision: str) -> None:
    report = export_onnx(
        official_weights("dvmsr_df2k"), tmp_path / "a.onnx", precision=precision, progress=silent
    )
    assert report.nodes["MambaMixer"] == 8
    for parity in report.parity:
        assert parity.max_abs < 2e-5 or precision == "fp16"
        assert parity.psnr > 63
