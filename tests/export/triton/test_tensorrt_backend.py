"""Repositories for the TensorRT backend. No server here loads engines: their layout is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_info import INFO, PLAN
from triton_config import read, tensors

from dvmsr.export.triton.export import export_triton
from dvmsr.export.triton.layout import Request
from dvmsr.runtime.backends.trt import engine_file, plugin_library
from dvmsr.runtime.backends.trt.engine_info import PluginInfo
from dvmsr.runtime.backends.trt.profiles import InputProfile, Profile

Export = Callable[..., int]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in place of a pair of libraries, named by the environment."""
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "libdvmsr_trt10.so").write_bytes(b"pure")
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(folder / "libdvmsr_trt10.so"))
    registering = folder / "libdvmsr_trt10_register.so"
    registering.write_bytes(b"registering")
    return registering


def engine(folder: Path, **changed: Any) -> Path:
    """A file in place of an engine, with its description."""
    path = folder / "net.engine"
    engine_file.write_engine(path, PLAN, replace(INFO, **changed), overwrite=True)
    return path


def test_the_engine_and_its_plugin(tmp_path: Path, plugin: Path) -> None:
    models = tmp_path / "models"
    request = Request(Path("/models"))
    report = export_triton([str(engine(tmp_path))], models, request)
    model = models / "net"
    config = read(model)
    assert config.backend == "tensorrt" and config.max_batch_size == 2
    assert tensors(config.input) == {"input": ("TYPE_FP16", [3, -1, -1])}
    assert tensors(config.output) == {"output": ("TYPE_FP16", [3, -1, -1])}
    assert list(config.model_warmup[0].inputs["input"].dims) == [3, 256, 256]
    assert config.HasField("dynamic_batching")
    assert (model / "1" / "model.plan").read_bytes() == PLAN
    assert (model / plugin.name).read_bytes() == b"registering"
    library = f"/models/net/{plugin.name}"
    assert report.server_options == [f"--backend-config=tensorrt,plugins={library}"]


def test_the_command_that_starts_the_server(
    tmp_path: Path, plugin: Path, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (engine(tmp_path), "-o", tmp_path / "models", "--mounted-at", "/models")
    assert export(*words) == 0
    assert capsys.readouterr().err == (
        "serve it with: tritonserver --model-repository=/models "
        f"--backend-config=tensorrt,plugins=/models/net/{plugin.name}\n"
    )


def test_an_engine_that_carries_its_plugin(tmp_path: Path) -> None:
    changed = {"plugin": PluginInfo("1", 10, "ab" * 32, True), "version_compatible": True}
    report = export_triton(
        [str(engine(tmp_path, **changed))], tmp_path / "models", Request(Path("/models"))
    )
    assert report.server_options == ["--backend-config=tensorrt,version-compatible=true"]


def test_batches(
    tmp_path: Path, plugin: Path, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    assert export(engine(tmp_path), "-o", models, "--max-batch", 1) == 0
    config = read(models / "net")
    assert config.max_batch_size == 1 and not config.HasField("dynamic_batching")
    assert export(engine(tmp_path), "-o", tmp_path / "others", "--max-batch", 3) == 2
    assert (
        "net.engine takes batches of 1 to 2, not 3; choose --max-batch" in capsys.readouterr().err
    )
    profile = Profile((2, 16, 16), (2, 64, 64), (4, 64, 64))
    pairs = engine(tmp_path, profiles=profile.inputs())
    assert export(pairs, "-o", tmp_path / "others") == 5
    assert "takes no single picture, which Triton may send; build it with --batch 1,2,4" in (
        capsys.readouterr().err
    )


def test_the_server_reads_the_tensors_of_others_from_the_engine(
    tmp_path: Path, plugin: Path
) -> None:
    profile = InputProfile((1, 8), (2, 8), (4, 8))
    others = engine(tmp_path, model={"dvmsr.network": "a:b"}, profiles={"x": profile})
    export_triton([str(others)], tmp_path / "models", Request(tmp_path))
    config = read(tmp_path / "models" / "net")
    assert not config.input and not config.output and config.max_batch_size == 0
    export_triton([str(others)], tmp_path / "more", Request(tmp_path, max_batch=3))
    assert read(tmp_path / "more" / "net").max_batch_size == 3


def test_what_it_does_not_serve(
    tmp_path: Path, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    rtx = engine(tmp_path, target="rtx", plugin=None)
    assert export(rtx, "-o", models) == 5
    assert capsys.readouterr().err == (
        f"error: {rtx} is an engine of TensorRT for RTX, which Triton does not load; build one of "
        "TensorRT with `dvmsr-export trt --target gpu`, or choose --backend python\n"
    )
    assert export("student", "-o", models, "--backend", "tensorrt") == 2
    assert "build one with `dvmsr-export trt" in capsys.readouterr().err
    assert not models.exists()


def test_the_plugin_is_missing(
    tmp_path: Path,
    export: Export,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(plugin_library.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert export(engine(tmp_path), "-o", tmp_path / "models") == 4
    assert "`dvmsr-export plugin-path --build --tensorrt 10`" in capsys.readouterr().err


def test_by_the_python_backend_dvmsr_runs_the_engine(
    tmp_path: Path, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    rtx = engine(tmp_path, target="rtx", plugin=None)
    assert export(rtx, "-o", models, "--backend", "python") == 0
    for name in ("net", "net-pictures"):
        config = read(models / name)
        assert config.backend == "python" and config.instance_group[0].kind == 1  # KIND_GPU
        assert (models / name / "1" / "net.engine.json").is_file()
    capsys.readouterr()
    carrying = engine(tmp_path, plugin=PluginInfo("1", 10, "ab" * 32, True))
    words = (carrying, "-o", tmp_path / "others", "--backend", "python")
    assert export(*words) == 2
    assert "carries the plugin library, which the Python backend does not run" in (
        capsys.readouterr().err
    )
