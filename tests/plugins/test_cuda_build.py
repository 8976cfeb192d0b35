"""What nvcc makes of the kernels: nothing may spill out of the registers at N = 16."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cuda_emulation import PLUGINS

NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")

pytestmark = pytest.mark.skipif(not NVCC, reason="needs nvcc")


@pytest.mark.parametrize(
    "source", ["selective_scan_f16", "selective_scan_f32", "causal_conv1d_f16"]
)
def test_nothing_spills(source: str, tmp_path: Path) -> None:
    command = [NVCC, "-std=c++17", "-arch=sm_90", "-cubin", "-Xptxas=-v"]
    done = subprocess.run(
        [*command, str(PLUGINS / f"{source}.cu"), "-o", str(tmp_path / "kernels.cubin")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kernels = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores",
        done.stderr,
        re.DOTALL,
    )
    # The general kernels hold 64 states and as many decays per thread; some of them may spill.
    fast = [kernel for kernel in kernels if "Li64E" not in kernel[0]]
    assert len(fast) >= 3, done.stderr
    assert all(stack == spills == "0" for _, stack, spills in fast), fast
