"""The CPU kernels under the address, undefined-behaviour and thread sanitizers."""

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
PLUGINS = ROOT / "plugins"
# At -O0, but with what the kernels count on: that no NaN traps. With vectors of 16 lanes on any
# processor: the compiler splits what it does not have.
BUILD = (
    *("-std=c++17", "-O0", "-g1", "-Wno-psabi", "-fno-trapping-math", "-pthread"),
    *("-DDVMSR_ISA=baseline", "-DDVMSR_LANES=16"),
    *(f"-I{PLUGINS / folder}" for folder in ("include", "cpu")),
    *map(str, sorted((PLUGINS / "cpu").glob("*.cpp"))),
)


def sanitizer_library(name: str) -> str | None:
    """Where g++ has that library; None where it has none."""
    if not COMPILER:
        return None
    path = subprocess.run(
        [COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return path if Path(path).is_absolute() else None


def needs(*names: str) -> pytest.MarkDecorator:
    missing = not all(map(sanitizer_library, names))
    return pytest.mark.skipif(missing, reason=f"there is no g++ with {' and '.join(names)}")


@needs("libasan.so", "libubsan.so")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    # The sanitizers' libraries come before all else in a process that loads others.
    preloaded = " ".join(map(str, map(sanitizer_library, ("libasan.so", "libubsan.so"))))
    environment = {
        **os.environ,
        "LD_PRELOAD": preloaded,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONPATH": str(ROOT / "tests" / "helpers"),
    }
    library = tmp_path / "libdvmsr_ops.so"
    subprocess.run([COMPILER, *BUILD, *SANITIZERS, "-fPIC", "-shared", "-o", library], check=True)
    script = Path(__file__).with_name("cpu_sanitized.py")
    done = subprocess.run(
        [sys.executable, script, library], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]


@needs("libtsan.so")
def test_threads_do_not_race(tmp_path: Path) -> None:
    program = tmp_path / "cpu_threads"
    driver = Path(__file__).with_name("cpu_threads.cpp")
    subprocess.run(
        [COMPILER, *BUILD, "-O1", "-fsanitize=thread", driver, "-o", program], check=True
    )
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "equal\n"
