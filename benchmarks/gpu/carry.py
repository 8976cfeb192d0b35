"""Fill `benchmarks/gpu/carry` with what a GPU's machine without a network lacks.

    python benchmarks/gpu/carry.py [--rlfn FILE] [--photographs FILE.tar...] [--validation DIR]

Wheels for a Python 3.12 on Linux x86-64 (scikit-build-core, what dvmsr needs besides numpy,
PyTorch and ONNX Runtime), the headers of TensorRT, and the sources of mamba-ssm and
causal-conv1d come from the package index; RLFN's checkpoint and pictures to train on are
copied if they are named. git ignores the folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from agenda import CARRY, HERE

WHEELS = ("scikit-build-core>=1.0", "pillow", "typer", "rich", "safetensors")
SOURCES = ("mamba-ssm==2.3.0", "causal-conv1d==1.7.0")
"""The last mamba-ssm whose import does not need tilelang."""
SYSTEMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
HEADERS = HERE.parents[1] / "plugins" / "tensorrt" / "fetch_headers.cmake"


class CarryError(Exception):
    """What could not be brought, in one sentence."""


def run(what: str, command: list[str], **environment: str) -> None:
    """Raises CarryError if the command fails; what it says goes to stderr."""
    try:
        done = subprocess.run(command, stdout=sys.stderr, env={**os.environ, **environment})
    except OSError as error:
        raise CarryError(f"{what}: {command[0]} cannot be run ({error.strerror})") from None
    if done.returncode:
        raise CarryError(f"{what} could not be brought, as said above")


def wheels(python: str) -> None:
    """For that version of Python, such as 3.12."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp"]
    for system in SYSTEMS:
        command += ["--platform", f"{system}_x86_64"]
    run("wheels", [*command, "-d", str(CARRY / "wheels"), *WHEELS])


def sources() -> None:
    """Of mamba-ssm and causal-conv1d."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:all:"]
    command += ["--no-build-isolation", "-d", str(CARRY), *SOURCES]
    skip = {"MAMBA_SKIP_CUDA_BUILD": "TRUE", "CAUSAL_CONV1D_SKIP_CUDA_BUILD": "TRUE"}
    run("the sources of mamba-ssm and causal-conv1d", command, **skip)


def headers() -> None:
    """Of TensorRT 10."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["cmake", "-Dmajor=10", f"-Dpython={sys.executable}", f"-Dfolder={folder}"]
        run("TensorRT's headers", [*command, "-P", str(HEADERS)])
        found = Path(folder) / "kernel_lens" / "include" / "tensorrt"
        if not found.is_dir():
            raise CarryError("TensorRT's headers could not be brought, as said above")
        shutil.copytree(found, CARRY / "tensorrt" / "include", dirs_exist_ok=True)


def copy(source: Path, target: Path) -> None:
    """A file or a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise CarryError(f"{source} cannot be copied ({error.strerror}); check the path") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rlfn", type=Path, help="RLFN's released checkpoint")
    parser.add_argument("--photographs", type=Path, nargs="+", default=[], metavar="FILE.tar")
    parser.add_argument("--validation", type=Path, help="a folder with HR/ and LRx4/")
    parser.add_argument("--python", default="3.12", help="of the GPU's machine (3.12)")
    arguments = parser.parse_args()
    CARRY.mkdir(exist_ok=True)
    try:
        wheels(arguments.python)
        headers()
        sources()
        if arguments.rlfn:
            copy(arguments.rlfn, CARRY / "rlfn.pth")
        for file in arguments.photographs:
            copy(file, CARRY / "photographs" / file.name)
        if arguments.validation:
            copy(arguments.validation, CARRY / "validation")
    except CarryError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    size = sum(path.stat().st_size for path in CARRY.rglob("*") if path.is_file())
    print(f"{CARRY}: {size / 2**20:.0f} MiB", file=sys.stderr)


if __name__ == "__main__":
    main()
