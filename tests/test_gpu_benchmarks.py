"""The scripts for a GPU, as far as a processor and the emulated device go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shared import REPOSITORY

from dvmsr.errors import MissingComponentError
from dvmsr.kernels import cpu, nvcc

pytestmark = pytest.mark.slow

FOLDER = REPOSITORY / "benchmarks" / "gpu"


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("script", ["facts", "correctness", "plugin", "scan", "network"])
def test_every_script_starts(script: str) -> None:
    done = run(sys.executable, FOLDER / f"{script}.py", "--help")
    assert done.returncode == 0, done.stderr


def test_fp32_is_not_tf32_in_pytorch() -> None:
    """Whatever the switches were before; the run ends where it would load the first model."""
    script = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
import network, torch
both = torch.backends.cuda.matmul, torch.backends.cudnn
def stop(path):
    sys.exit(" ".join(str(one.allow_tf32) for one in both))
for one in both:
    one.allow_tf32 = True
torch.cuda.is_available = lambda: True
network.checkpoint.load = stop
sys.argv[1:] = ["dvmsr.pth", "rlfn.pth"]
network.main()
"""
    assert run(sys.executable, "-c", script).stderr == "False False\n"


def test_the_unattended_run_wants_a_gpu() -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU")
    done = run(FOLDER / "run.sh")
    assert (done.returncode, done.stderr) == (4, "error: no NVIDIA GPU (nvidia-smi names none)\n")


@pytest.mark.skipif(not cpu.library_path(), reason="needs the CPU's gradients as truth")
def test_correctness_on_the_emulated_device(cuda_on_host: Path) -> None:
    script = FOLDER / "correctness.py"
    done = run(sys.executable, script, "--small", DVMSR_CUDA_LIBRARY=str(cuda_on_host))
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(" checks, 0 off\n")


def test_the_probes_compile(tmp_path: Path) -> None:
    try:
        compiler = nvcc.find()
    except MissingComponentError as error:
        pytest.skip(str(error))
    source = FOLDER / "probes.cu"
    include = f"-I{nvcc.sources() / 'cuda'}"
    target = tmp_path / "probes.cubin"
    done = run(compiler.path, "-std=c++17", "-arch=sm_90", "-cubin", include, source, "-o", target)
    assert done.returncode == 0, done.stderr
