"""Compiled kernels as the CUDA toolkit's cuobjdump tells them: what each takes, and its
instructions."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.kernels import nvcc

PACKAGES = {"cuobjdump": "nvidia-cuda-cuobjdump", "nvdisasm": "nvidia-cuda-nvdisasm"}
"""The tools, and the packages of the package index that bring them."""


@dataclass(frozen=True)
class Instruction:
    """One of a kernel's: its address in bytes, and its text without predicate and operands."""

    address: int
    predicate: str
    opcode: str
    operands: str


def tool(name: str) -> Path:
    """cuobjdump or nvdisasm: beside nvcc, on the PATH, or the package index's.

    Raises:
        MissingComponentError: if it is not there.
    """
    candidates = [nvcc.find().path.resolve().with_name(name)]
    if found := shutil.which(name):
        candidates.append(Path(found))
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        candidates += Path(folder).glob(f"cu*/bin/{name}")
    for path in candidates:
        if os.access(path, os.X_OK):
            return path
    raise MissingComponentError(
        f"reading machine code needs {name}; pip install {PACKAGES[name]}, "
        "or install the CUDA toolkit"
    )


def resources(compiled: Path) -> list[dict[str, Any]]:
    """Registers (`reg`), bytes of stack (`stack`; spills are there), static shared memory
    (`shared`) and local memory (`local`) of each kernel in a cubin or library; none where that
    was compiled for the host alone.

    Raises:
        MissingComponentError: without cuobjdump.
        DvmsrError: if it cannot read the file.
    """
    return usages(_told("-res-usage", compiled))


def functions(compiled: Path) -> dict[str, list[Instruction]]:
    """The instructions of each kernel in a cubin, by its readable name.

    Raises:
        MissingComponentError: without cuobjdump or nvdisasm.
        DvmsrError: if they cannot read the file.
    """
    return instructions(_told("-sass", compiled, {"NVDISASM_PATH": str(tool("nvdisasm").parent)}))


def usages(text: str) -> list[dict[str, Any]]:
    """`resources` from what `cuobjdump -res-usage` prints."""
    found, name = [], ""
    for line in text.splitlines():
        if function := re.match(r"\s*Function (\S+):", line):
            name = function[1]
        elif usage := dict(re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", line)):
            numbers = {key.lower(): int(value) for key, value in usage.items()}
            found.append({"kernel": demangled(name), **numbers})
    return found


def instructions(text: str) -> dict[str, list[Instruction]]:
    """`functions` from what `cuobjdump -sass` prints."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if function := re.match(r"\s*Function : (\S+)", line):
            current = found[demangled(function[1])] = []
        elif one := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@(\S+)\s+)?([^\s;]+)([^;]*);", line):
            address, predicate, opcode, operands = one.groups()
            current.append(Instruction(int(address, 16), predicate or "", opcode, operands.strip()))
    return found


def demangled(name: str) -> str:
    """The name and template arguments without the parameters, where c++filt is there."""
    try:
        done = subprocess.run(["c++filt", name], capture_output=True, text=True)
    except OSError:
        return name
    readable = done.stdout.strip().replace("(anonymous namespace)::", "").removeprefix("void ")
    return readable.partition("(")[0] or name


def _told(option: str, compiled: Path, environment: dict[str, str] | None = None) -> str:
    command = [str(tool("cuobjdump")), option, str(compiled)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environment or {})}
    )
    said = done.stdout + done.stderr
    if done.returncode and "does not contain device code" not in said:
        reason = done.stderr.strip().partition("\n")[0]
        raise DvmsrError(f"cuobjdump cannot read {compiled} ({reason}); compile it anew")
    return done.stdout
