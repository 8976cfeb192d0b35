"""The small network's files, and the command to be tested."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_model import CONFIG, Models

from dvmsr import checkpoint
from dvmsr.export.onnx.export import export_onnx
from dvmsr.model import DVMSR
from dvmsr.runtime import cli


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = DVMSR(CONFIG).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    result = Models(
        network,
        folder / "small.onnx",
        folder / "small_fp16.onnx",
        folder / "small_5x7.onnx",
        folder / "small.safetensors",
        folder / "small.pth",
    )
    checkpoint.save(network, result.safetensors)
    torch.save(network.state_dict(), result.pth)
    export_onnx(network, result.onnx, verify=False)
    export_onnx(network, result.onnx_fp16, precision="fp16", verify=False)
    export_onnx(network, result.onnx_5x7, static_shape=(1, 5, 7), verify=False)
    return result


@pytest.fixture(scope="session")
def streaming_file(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as a step over strips of rows."""
    path = tmp_path_factory.mktemp("streaming") / "small.onnx"
    export_onnx(models.network, path, streaming=True, verify=False)
    return path


@pytest.fixture
def folder(tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, but for the model `m.onnx`."""
    shutil.copy(models.onnx, tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def infer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `dvmsr-infer` with the given arguments and returns its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["dvmsr-infer", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        code = exit.value.code
        return 0 if code is None else int(code)

    return run
