"""What an installation contains and asks for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import dvmsr
from dvmsr.kernels import cpu, nvcc


def requirements(extra: str = "") -> set[str]:
    """Names of the packages that dvmsr, or one of its extras, requires."""
    wanted = f'extra == "{extra}"' if extra else ""
    return {
        re.split(r"[\s;<>=!~(\[]", requirement)[0].lower()
        for requirement in metadata.requires("dvmsr") or []
        if requirement.replace("'", '"').partition(";")[2].strip() == wanted
    }


def test_base_installation_is_light() -> None:
    assert requirements() == {"numpy", "pillow", "onnxruntime", "typer", "rich"}


@pytest.mark.parametrize(
    ("extra", "heavy"),
    [
        ("train", {"torch", "safetensors"}),
        ("export", {"torch", "safetensors", "onnx"}),
        ("gpu", {"onnxruntime-gpu", "tensorrt", "polygraphy"}),
        ("rtx", {"tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings", "polygraphy"}),
        ("plugin", {"nvidia-cuda-nvcc", "cmake"}),
        ("mamba", {"mamba-ssm", "causal-conv1d"}),
    ],
)
def test_extras_bring_the_rest(extra: str, heavy: set[str]) -> None:
    assert heavy <= requirements(extra)


def test_the_version_stands_in_one_place() -> None:
    assert metadata.version("dvmsr") == dvmsr.__version__


def test_console_scripts_exist() -> None:
    scripts = {
        script.name: script.load()
        for script in metadata.entry_points(group="console_scripts")
        if script.value.startswith("dvmsr.")
    }
    assert sorted(scripts) == ["dvmsr", "dvmsr-export", "dvmsr-infer"]
    assert all(callable(main) for main in scripts.values())


def test_the_sources_of_the_plugin_are_installed() -> None:
    names = {path.name for path in (nvcc.sources() / "tensorrt").iterdir()}
    assert {"CMakeLists.txt", "plugin.cpp", "exports.map"} <= names
    assert (nvcc.sources() / "cuda" / "selective_scan.cuh").is_file()


def test_native_operators_are_built_where_a_compiler_is() -> None:
    """pip falls back to a pure Python wheel, and the tests of the operators would skip."""
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler")
    assert cpu.library_path(), "their build failed; `pip install -v -e .` shows why"
    assert cpu.isa()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
def test_a_failing_build_gives_a_pure_wheel_and_the_reason(tmp_path: Path) -> None:
    """The compiler is there, but not able to compile."""
    pytest.importorskip("scikit_build_core")
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho this compiler is broken >&2\nexit 1\n")
    compiler.chmod(0o755)
    program = (
        "from scikit_build_core.build import build_wheel\n"
        f"print(build_wheel({str(tmp_path)!r}, {{'build-dir': {str(tmp_path / 'build')!r}}}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(dvmsr.__file__).resolve().parents[1],
        env={**os.environ, "CXX": str(compiler)},
        capture_output=True,
        text=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*-py3-none-any.whl")
    page = {
        f"dvmsr/eval/page/{name}" for name in ("__init__.py", "page.html", "page.css", "page.js")
    }
    assert page <= set(zipfile.ZipFile(wheel).namelist())
    printed = result.stdout + result.stderr
    assert "this compiler is broken" in printed
    notice = next(line for line in printed.splitlines() if "WITHOUT its native operators" in line)
    assert "building them failed, as said above" in notice
