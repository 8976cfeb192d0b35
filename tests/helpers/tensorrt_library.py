"""Builds the TensorRT plugin for the tests, once per set of headers, under build/."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vectors import ConvCase, ScanCase

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.kernels import nvcc

TOOLS = ("cmake", "ninja")
TYPES = {"float32": 0, "float16": 1}  # nvinfer1::DataType
_ROOT = Path(__file__).resolve().parents[2]
PLUGINS = _ROOT / "plugins"

HEADERS = ("found", "TENSORRT_ROOT") if os.environ.get("TENSORRT_ROOT") else ("found",)
"""The headers that CMake finds or downloads, and those that the environment names, if any."""


@dataclass(frozen=True)
class Library:
    """The plugin of one major version of TensorRT."""

    pure: Path
    """For IPluginRegistry::loadLibrary."""
    registering: Path
    """Registers itself when loaded."""
    include: tuple[str, ...]
    """Compiler flags that find the headers of TensorRT and CUDA."""

    @property
    def major(self) -> int:
        """Of the TensorRT that it is for."""
        return int(self.pure.stem.removeprefix("libdvmsr_trt"))

    def compile(self, source: str, output: Path, *flags: str) -> Path:
        """A C++ file of `tests/plugins`."""
        path = _ROOT / "tests" / "plugins" / source
        command = ["c++", "-std=c++17", "-Wall", "-Wextra", "-g", *flags, *self.include]
        compiled = _run([*command, str(path), "-o", str(output), "-ldl"])
        if compiled.returncode:
            raise DvmsrError(f"{source} does not compile: {compiled.stderr}")
        return output

    def compile_for_host(self, output: Path, plugin: Path, *flags: str) -> Path:
        """The pure library with its kernels on the host; `plugin` is `plugin.cpp` or a variant."""
        folder = PLUGINS / "tensorrt"
        sources = [str(folder / f"{name}.cpp") for name in ("operators", "log", "host", "exports")]
        kernels = [
            part for path in (PLUGINS / "cuda").glob("*.cu") for part in ("-x", "c++", str(path))
        ]
        return self.compile(
            "tensorrt_host_runtime.cpp",
            output,
            "-shared",
            "-fPIC",
            '-DDVMSR_KERNELS_SHA256=""',
            f"-I{_ROOT / 'tests' / 'plugins' / 'cuda'}",
            f"-I{PLUGINS / 'cuda'}",
            f"-I{folder}",
            *flags,
            str(plugin),
            *sources,
            *kernels,
        )


def build(headers: str, architectures: str = "90") -> Library:
    """`made`; skips the running test without nvcc, CMake or the headers."""
    import pytest  # not there where `made` alone is used

    try:
        return made(headers, architectures)
    except MissingComponentError as error:
        pytest.skip(str(error))


@functools.cache
def made(headers: str, architectures: str = "90") -> Library:
    """Built for these architectures, with warnings as errors.

    Raises:
        MissingComponentError: without nvcc, CMake or the headers.
        DvmsrError: if it does not compile.
    """
    compiler = nvcc.find()
    folders = [os.environ["PATH"], str(Path(sys.executable).parent)]
    cmake, ninja = (shutil.which(name, path=os.pathsep.join(folders)) for name in TOOLS)
    if cmake is None:
        raise MissingComponentError("building the TensorRT plugin needs CMake; install it")
    folder = _ROOT / "build" / f"tensorrt-{headers}"
    options = {
        "CMAKE_CXX_FLAGS": "-Werror",
        "CMAKE_CUDA_COMPILER": str(compiler.path),
        "CMAKE_CUDA_ARCHITECTURES": architectures,
        "TENSORRT_ROOT": os.environ["TENSORRT_ROOT"] if headers == "TENSORRT_ROOT" else "",
        "DVMSR_FETCH_TENSORRT_HEADERS": "10",
    }
    settings = [f"-D{key}={value}" for key, value in options.items()]
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    configured = _run(
        [cmake, "-S", str(PLUGINS / "tensorrt"), "-B", str(folder), *generator, *settings],
        compiler.environment(),
    )
    if "headers were not found" in configured.stderr:
        raise MissingComponentError(
            "there are no headers of TensorRT, and none could be downloaded; name them in "
            "TENSORRT_ROOT"
        )
    if configured.returncode:
        raise DvmsrError(f"CMake cannot configure the plugin: {configured.stderr}")
    built = _run([cmake, "--build", str(folder)], compiler.environment())
    if built.returncode:
        raise DvmsrError(f"the plugin does not compile: {built.stdout}{built.stderr}")
    cache = (folder / "CMakeCache.txt").read_text()
    include = re.findall("^DVMSR_INCLUDE_DIRS:INTERNAL=(.*)$", cache, re.M)[0].split(";")
    registering = max(folder.glob("libdvmsr_trt*_register.so"), key=os.path.getmtime)
    pure = registering.with_name(registering.name.replace("_register", ""))
    return Library(pure, registering, tuple(f"-isystem{path}" for path in include))


def call_of(case: ScanCase | ConvCase, dtype: str, inputs: int, tactic: int) -> list[str]:
    """What tensorrt_driver.cpp wants to know to have an operator of that many inputs run."""
    sizes = {"B": case.batch, "L": case.length, "D": case.channels}
    if isinstance(case, ScanCase):
        op, flag = "SelectiveScan", case.softplus
        sizes |= {"G": case.groups, "N": case.state}
    else:
        op, flag = "CausalConv1d", case.activation
        sizes |= {"K": case.width, "k": case.width - 1}
    axes = [part for item in sizes.items() for part in item]
    return [op, *map(str, [TYPES[dtype], tactic, int(flag), inputs, *axes])]


def _run(
    command: list[str], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
