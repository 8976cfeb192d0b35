"""Before everything else: the kernels and the probes, compiled for this GPU, and what each
kernel takes.

    python benchmarks/gpu/build.py [--probes FILE]

The library of the kernels goes into the user's cache, where all steps find it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from results import Results, parser, step
from tools import PROBES, compile_probes

from dvmsr.kernels import cuda, cuda_build, nvcc


def resources(library: Path) -> list[dict[str, Any]]:
    """Registers, bytes of stack (spills are there) and shared memory of each kernel, as the
    toolkit's cuobjdump tells them; empty, and said, where it is not installed."""
    tool = nvcc.find().path.resolve().with_name("cuobjdump")
    try:
        done = subprocess.run([tool, "-res-usage", library], capture_output=True, text=True)
    except OSError:
        print(f"no registers told: {tool} is not there", file=sys.stderr)
        return []
    found, name = [], ""
    for line in done.stdout.splitlines():
        if function := re.match(r"\s*Function (\S+):", line):
            name = function[1]
        elif usage := dict(re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", line)):
            numbers = {key.lower(): int(value) for key, value in usage.items()}
            found.append({"kernel": demangled(name), **numbers})
    return found


def demangled(name: str) -> str:
    """The name and template arguments without the parameters, where c++filt is there."""
    try:
        done = subprocess.run(["c++filt", name], capture_output=True, text=True)
    except OSError:
        return name
    readable = done.stdout.strip().replace("(anonymous namespace)::", "").removeprefix("void ")
    return readable.partition("(")[0] or name


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--probes", type=Path, help="also compile the probes, into this file")
    arguments = options.parse_args()
    started = time.monotonic()
    library = cuda.Library(cuda_build.require())
    device = library.device()
    what = "the library of the kernels, compiled for this GPU"
    results = Results("build", device.name, device, what)
    results.put(
        seconds=time.monotonic() - started,
        named_by_the_environment=os.environ.get(cuda_build.ENVIRONMENT) is not None,
        kernels=resources(library.path),
    )
    if arguments.probes and not os.environ.get(PROBES) and not arguments.probes.is_file():
        compile_probes(arguments.probes)
    results.finish()
    return 0


if __name__ == "__main__":
    step(main)
