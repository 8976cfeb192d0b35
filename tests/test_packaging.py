"""What an installation contains and asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image
from shared import REPOSITORY

import dvmsr
from dvmsr.kernels import cpu, nvcc
from dvmsr.runtime import Upscaler


def requirements(extra: str = "") -> set[str]:
    """Names of the packages that dvmsr, or one of its extras, requires."""
    without = {r.name for r in _requirements("")}
    return {r.name for r in _requirements(extra)} - (without if extra else set())


def _requirements(extra: str) -> list[Requirement]:
    """What this Python gets, with an extra or none."""
    everything = map(Requirement, metadata.requires("dvmsr") or [])
    return [r for r in everything if not r.marker or r.marker.evaluate({"extra": extra})]


def test_base_installation_is_light() -> None:
    assert requirements() == {"numpy", "pillow", "onnxruntime", "typer", "rich"}


@pytest.mark.parametrize(
    ("package", "floor"),
    [
        ("torch", "2.10"),
        ("onnx", "1.21"),
        ("pyvips-binary", "8.18.3"),
        ("pillow", "13" if sys.version_info >= (3, 11) else "12.3"),
        ("av", "18" if sys.version_info >= (3, 11) else "17.1"),
    ],
)
def test_no_version_with_a_known_hole_in_what_reads_files(package: str, floor: str) -> None:
    """By the extras and the base; what is installed here, too."""
    below = str(Version(floor)) + ".dev0"
    found = [
        requirement
        for extra in metadata.metadata("dvmsr").get_all("Provides-Extra") or []
        for requirement in _requirements(extra)
        if requirement.name == package
    ]
    assert found
    assert not any(r.specifier.contains(below, prereleases=True) for r in found)
    with suppress(metadata.PackageNotFoundError):
        assert Version(metadata.version(package)) >= Version(floor)


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
    assert (nvcc.sources() / "cuda" / "scan_chunks.cuh").is_file()


def test_native_operators_are_built_where_a_compiler_is() -> None:
    """pip falls back to a pure Python wheel, and the tests of the operators would skip."""
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler")
    assert cpu.library_path(), "their build failed; `pip install -v -e .` shows why"
    assert cpu.isa()


def build_wheel(folder: Path, build: str, **environment: str) -> tuple[Path, str]:
    """What `pip wheel` makes of the checkout in a folder to build in, and what is printed."""
    program = (
        "from scikit_build_core.build import build_wheel\n"
        f"print(build_wheel({str(folder)!r}, {{'build-dir': {build!r}}}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("c++") and shutil.which("cmake")), reason="needs a C++ compiler and cmake"
)
def test_a_wheel_computes_natively_where_there_is_no_compiler(tmp_path: Path) -> None:
    """In an environment of its own, with the dependencies that are installed here."""
    pytest.importorskip("scikit_build_core")
    wheel, _ = build_wheel(tmp_path, "build/{wheel_tag}")  # where an installation has built it
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("-any.whl")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index"]
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    (own,) = environment.glob("lib/python*/site-packages")
    dependencies = Path(np.__file__).parents[1]
    (own / "dependencies.pth").write_text(f"{dependencies}\n")  # whose own .pth files do not count
    source = REPOSITORY / "examples" / "chelsea.png"
    command = [environment / "bin" / "dvmsr-infer", source, "-o", "large.png"]
    ran = subprocess.run(
        [*command, "--backend", "native", "--threads", "1"],
        cwd=tmp_path,
        env={"PATH": str(environment / "bin")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    with Image.open(source) as image:
        expected = Upscaler.from_file(backend="native", threads=1)(image)
    with Image.open(tmp_path / "large.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
def test_a_failing_build_gives_a_pure_wheel_and_the_reason(tmp_path: Path) -> None:
    """The compiler is there, but not able to compile."""
    pytest.importorskip("scikit_build_core")
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho this compiler is broken >&2\nexit 1\n")
    compiler.chmod(0o755)
    wheel, printed = build_wheel(tmp_path, str(tmp_path / "build"), CXX=str(compiler))
    assert wheel.name.endswith("-py3-none-any.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("dvmsr/eval/page", "dvmsr/viewer", "dvmsr/runtime/serving/site"):
        files = {path.name for path in (REPOSITORY / folder).iterdir() if path.is_file()}
        assert len(files) > 2 and {f"{folder}/{name}" for name in files} <= packed
    assert "this compiler is broken" in printed
    notice = next(line for line in printed.splitlines() if "WITHOUT its native operators" in line)
    assert "building them failed, as said above" in notice
