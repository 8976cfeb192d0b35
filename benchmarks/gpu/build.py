"""Before everything else: the kernels and the probes, compiled for this GPU, and what each
kernel takes.

    python benchmarks/gpu/build.py [--probes FILE]

The library of the kernels goes into the user's cache, where all steps find it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import disassembly
from results import Results, parser, step
from tools import PROBES, compile_probes

from dvmsr.errors import MissingComponentError
from dvmsr.kernels import cuda, cuda_build


def resources(library: Path) -> list[dict[str, Any]]:
    """What each kernel takes; empty, and said, where the tool that tells it is not there."""
    try:
        return disassembly.resources(library)
    except MissingComponentError as error:
        print(f"no registers told: {error}", file=sys.stderr)
        return []


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
