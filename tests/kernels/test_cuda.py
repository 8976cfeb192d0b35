"""Where libdvmsr_cuda comes from, what stops it, and what it says of a machine without a GPU."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from processes import LIMIT, next_line

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.kernels import cuda, cuda_build, driver, nvcc

WRITE = 'while [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done\n'
"""Of a compiler: the file that it is to make."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cuda_build.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fake_nvcc(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that answers --version and otherwise runs the script."""
    path = folder / "nvcc"
    path.write_text(
        '#!/bin/sh\ncase "$*" in --version) echo "release 13.0, V13.0.88"; exit;; esac\n' + script
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CUDACXX", str(path))


def test_all_sources_are_installed() -> None:
    names = {path.name for path in cuda_build.units()}
    assert {"selective_scan.cu", "selective_scan_backward.cu", "pixels.cu", "runtime.cu"} <= names
    assert {"ort_operators.cu", "custom_ops.cpp", "inner_operators.cpp"} <= names
    assert not any(name.startswith("cpu_") for name in names)
    assert (nvcc.sources() / "ort" / "ort_abi.h").is_file()


def test_compiles_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    fake_nvcc(tmp_path, f'echo "$*" >> {log}\n{WRITE}', monkeypatch)
    library = cuda_build.build(["8.6", "9.0"])
    assert library == cuda_build.cache_path(["9.0", "8.6"])
    assert "compiling the CUDA kernels for compute capability 8.6, 9.0" in capsys.readouterr().err
    commands = log.read_text().splitlines()
    assert len(commands) == len(cuda_build.units()) + 1
    for code in ("code=sm_86", "code=sm_90", "code=compute_90"):
        assert all(code in command for command in commands)
    assert cuda_build.build(["8.6", "9.0"]) == library
    assert log.read_text().splitlines() == commands
    assert {path.name for path in library.parent.iterdir()} == {".lock", cuda_build.NAME}


def test_two_at_once_compile_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under torchrun: the second begins while the first compiles."""
    log, go_on = tmp_path / "log", tmp_path / "go-on"
    wait = f"until [ -e {go_on} ]; do sleep 0.05; done\n"
    fake_nvcc(tmp_path, f"echo >> {log}\n{wait}{WRITE}", monkeypatch)
    code = "from dvmsr.kernels import cuda_build; print(cuda_build.build(['9.0']))"
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)
        for _ in range(2)
    ]
    try:
        said = [next_line(process, process.stderr) for process in processes]
        assert said.count("another process compiles the CUDA kernels; waiting for it\n") == 1
        go_on.touch()
        told = [process.communicate(timeout=LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert told == [(f"{cuda_build.cache_path(['9.0'])}\n", "")] * 2
    assert log.read_text().count("\n") == len(cuda_build.units()) + 1


def test_a_failing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvcc(tmp_path, 'echo "x.cu(1): error: no such thing" >&2; exit 2', monkeypatch)
    with pytest.raises(DvmsrError, match=r"error: no such thing\); .*failed\.log has the whole"):
        cuda_build.build(["9.0"])
    assert not cuda_build.cache_path(["9.0"]).exists()


@pytest.mark.parametrize("architecture", ["sm_90", "9", "nine", ""])
def test_no_compute_capability(architecture: str) -> None:
    with pytest.raises(UsageError, match=r"no compute capability; name one such as 8\.9"):
        cuda_build.build([architecture])


def test_the_environment_names_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / cuda_build.NAME
    monkeypatch.setenv(cuda_build.ENVIRONMENT, str(named))
    with pytest.raises(MissingComponentError, match=r"names .*, which is no file"):
        cuda_build.require()
    named.write_bytes(b"no library")
    assert cuda_build.require() == named
    with pytest.raises(MissingComponentError, match="cannot be loaded"):
        cuda.Library(named)


@pytest.mark.skipif(driver.first() is not None, reason="there is a GPU")
def test_without_a_gpu() -> None:
    assert cuda_build.find() is None
    with pytest.raises(MissingComponentError, match="no NVIDIA GPU that CUDA can use; install"):
        cuda_build.require()


def test_the_device_of_a_library(cuda_on_host: Path) -> None:
    device = cuda.Library(cuda_on_host).device()
    assert (device.name, device.compute_capability) == ("host emulation", "9.0")
    assert device.driver == device.runtime == "13.0"
