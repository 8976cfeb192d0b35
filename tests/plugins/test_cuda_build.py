"""What nvcc makes of the kernels: nothing may spill out of the registers at N = 16."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cuda_emulation import PLUGINS

NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not NVCC, reason="needs nvcc")]


@pytest.mark.parametrize(
    "source",
    [
        "cuda/scan_chunks_f32",
        "cuda/scan_relay_f16",
        "cuda/scan_relay_f32",
        "cuda/causal_conv1d_f16",
        "cuda_library/selective_scan_backward",
    ],
)
def test_nothing_spills(source: str, tmp_path: Path) -> None:
    command = [NVCC, "-std=c++17", "-arch=sm_90", "-cubin", "-Xptxas=-v"]
    done = subprocess.run(
        [
            *command,
            f"-I{PLUGINS}",
            str(PLUGINS.parent / f"{source}.cu"),
            "-o",
            str(tmp_path / "kernels.cubin"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kernels = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores",
        done.stderr,
        re.DOTALL,
    )
    # The general forward kernels hold more states and decays per thread; some of them may spill.
    general = "Li64ELb"
    fast = [kernel for kernel in kernels if not re.search(general, kernel[0])]
    assert len(fast) >= 3, done.stderr
    assert all(stack == spills == "0" for _, stack, spills in fast), fast
