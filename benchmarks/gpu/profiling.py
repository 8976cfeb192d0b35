"""Step 5: where the time goes.

    python benchmarks/gpu/profiling.py CHECKPOINT

Nsight Compute on the scan at L = 65536, FP16 (its report is the log and a `.ncu-rep`), and the
kernels of the whole network at 256x256, FP16, by the time they take, from PyTorch's profiler.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from results import FOLDER, Deadline, Results, parser, step

from dvmsr.errors import MissingComponentError
from dvmsr.kernels import cuda

SCAN = Path(__file__).with_name("scan.py")
LAUNCHES = 12


def timeline(path: Path) -> list[dict[str, Any]]:
    """The network's kernels, longest first: calls and microseconds per forward pass; empty,
    and said, where PyTorch sees no GPU."""
    if importlib.util.find_spec("torch") is None:
        print("no timeline: PyTorch is not here", file=sys.stderr)
        return []
    import network
    import torch
    from torch.profiler import ProfilerActivity, profile

    from dvmsr import checkpoint

    if not torch.cuda.is_available():
        print("no timeline: PyTorch sees no GPU", file=sys.stderr)
        return []
    model = network.half(checkpoint.load(path).eval().cuda())
    image = torch.rand(1, 3, 256, 256, device="cuda", dtype=torch.float16)
    rounds = 10
    with torch.inference_mode():
        for _ in range(3):
            model(image)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            for _ in range(rounds):
                model(image)
            torch.cuda.synchronize()
    kernels = [
        {"kernel": event.key, "calls": event.count / rounds, "us": event.device_time_total / rounds}
        for event in found.key_averages()
        if event.device_time_total
    ]
    return sorted(kernels, key=lambda kernel: -kernel["us"])


def main() -> int:
    options = parser(__doc__)
    options.add_argument("checkpoint", type=Path)
    arguments = options.parse_args()
    deadline = Deadline(arguments.seconds)
    device = cuda.load().device()
    ncu = shutil.which("ncu")
    kernels = timeline(arguments.checkpoint)
    if not ncu and not kernels:
        raise MissingComponentError("ncu is not here, and PyTorch sees no GPU")
    results = Results("profile", device.name, device, "kernels of the network by time; ncu")
    results.put(network_256x256_fp16=kernels, ncu=None)
    if not ncu:
        print("no profile of the scan: ncu is not here", file=sys.stderr)
        results.finish()
        return 0
    aside = results.aside("ncu")
    report = aside.with_suffix(".ncu-rep")
    command = [ncu, "--set", "full", "--launch-count", str(LAUNCHES), "-f", "-o", str(report)]
    command += ["--page", "details", sys.executable, str(SCAN), "--lengths", "65536"]
    command += ["--batches", "1", "--dtypes", "float16", "--inputs", "student", "--rounds", "1"]
    status = 0
    try:
        done = subprocess.run(
            command,
            env={**os.environ, FOLDER: str(aside)},
            timeout=deadline.left() if arguments.seconds else None,
        )
        status = done.returncode
        results.put(ncu={"exit_code": status, "report": report.name})
    except subprocess.TimeoutExpired:
        results.leave_out("ncu")
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # times of a profiled run are no results
    results.finish()
    return status


if __name__ == "__main__":
    step(main)
