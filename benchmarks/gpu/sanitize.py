"""Step 1, the second half: the kernels and gradients on small shapes under compute-sanitizer.

    python benchmarks/gpu/sanitize.py

memcheck, racecheck and initcheck, one after the other; a report of theirs is exit code 3.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from results import FOLDER, OFF, Deadline, Results, parser, step

from dvmsr.errors import MissingComponentError
from dvmsr.kernels import cuda

TOOLS = ("memcheck", "racecheck", "initcheck")
SCRIPT = Path(__file__).with_name("correctness.py")


def main() -> int:
    arguments = parser(__doc__).parse_args()
    deadline = Deadline(arguments.seconds)
    sanitizer = shutil.which("compute-sanitizer")
    if not sanitizer:
        raise MissingComponentError("compute-sanitizer is not here; it comes with the CUDA toolkit")
    device = cuda.load().device()
    results = Results("sanitize", device.name, device, "correctness.py --small under the tools")
    results.put(tools=[])
    status = 0
    for tool in TOOLS:
        if deadline.left() < 1:
            results.leave_out(tool)
            continue
        started = time.monotonic()
        command = [sanitizer, "--tool", tool, "--error-exitcode", str(OFF)]
        command += [sys.executable, str(SCRIPT), "--small"]
        aside = results.aside(tool)
        try:
            done = subprocess.run(
                command,
                env={**os.environ, FOLDER: str(aside)},
                timeout=deadline.left() if arguments.seconds else None,
                stdout=subprocess.DEVNULL,  # the results of a slow run, which nobody wants
            )
        except subprocess.TimeoutExpired:
            results.leave_out(tool)
            continue
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        seconds = time.monotonic() - started
        results.add("tools", {"tool": tool, "exit_code": done.returncode, "seconds": seconds})
        status = status or done.returncode
    results.finish()
    return status


if __name__ == "__main__":
    step(main)
