"""The scripts of benchmarks/gpu can be imported, and their probes run on the emulated device."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_emulation import HOST, PLUGINS
from shared import REPOSITORY

FOLDER = REPOSITORY / "benchmarks" / "gpu"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))


@pytest.fixture(scope="session")
def probes_on_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels of probes.cu, compiled for the host against the emulated device."""
    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("needs g++ to compile the probes for the host")
    target = tmp_path_factory.mktemp("probes") / "probes.so"
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    command += [f"-I{HOST}", f"-I{PLUGINS}", "-x", "c++", str(FOLDER / "probes.cu")]
    done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def emulated(
    cuda_on_host: Path, probes_on_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Processes that a test starts use the emulated device; the folder of their results."""
    results = tmp_path / "results"
    monkeypatch.setenv("DVMSR_CUDA_LIBRARY", str(cuda_on_host))
    monkeypatch.setenv("DVMSR_GPU_PROBES", str(probes_on_host))
    monkeypatch.setenv("DVMSR_GPU_RESULTS", str(results))
    monkeypatch.setenv("DVMSR_RUN", "tried")
    return results
