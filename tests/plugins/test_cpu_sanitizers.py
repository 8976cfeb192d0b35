"""The CPU kernels under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("g++")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# At -O0, but with what the kernels count on: that no NaN traps.
OPTIONS = ("-std=c++17", "-O0", "-g1", "-fPIC", "-shared", "-Wno-psabi", "-fno-trapping-math")


def preloaded() -> str:
    """The sanitizers' libraries, which come before all else in a process that loads others."""
    if not COMPILER:
        pytest.skip("there is no g++")
    names = ("libasan.so", "libubsan.so")
    found = [
        subprocess.run(
            [COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in names
    ]
    if not all(Path(path).is_absolute() for path in found):
        pytest.skip("g++ has no sanitizer libraries")
    return " ".join(found)


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """With vectors of 16 lanes on any processor: the compiler splits what it does not have."""
    environment = {
        **os.environ,
        "LD_PRELOAD": preloaded(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONPATH": str(ROOT / "tests" / "helpers"),
    }
    library = tmp_path / "libdvmsr_ops.so"
    folder = ROOT / "plugins"
    names = ("kernels", "operators", "executor", "transpose")
    sources = [folder / "cpu" / f"{name}.cpp" for name in names]
    subprocess.run(
        [COMPILER, *OPTIONS, *SANITIZERS, "-DDVMSR_ISA=baseline", "-DDVMSR_LANES=16",
         f"-I{folder / 'include'}", f"-I{folder / 'cpu'}", *sources, "-o", library, "-pthread"],
        check=True,
    )  # fmt: skip
    script = Path(__file__).with_name("cpu_sanitized.py")
    done = subprocess.run(
        [sys.executable, script, library], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
