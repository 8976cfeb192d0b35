"""Step 0, the ceilings: what this GPU copies, exponentiates and multiplies in a second; and how far
its exponential is off near 0.

    python benchmarks/gpu/facts.py [--mib 1024]

All later speeds are divided by these rates; `correctness.py` derives from the bias of ex2.approx
what it allows slow decays.
"""

from __future__ import annotations

import subprocess

import ex2_bias
import numpy as np
from results import Deadline, Results, parser, step
from tools import Gpu, Probes, median

ROUNDS = 20
QUERY = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,mig.mode.current"


def nvidia_smi() -> dict[str, str]:
    """Clocks and limits as the driver's tool tells them; empty without it."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    values = [value.strip() for value in line.splitlines()[0].split(",")]
    return dict(zip(QUERY.split(","), values, strict=False))


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--mib", type=int, default=1024, help="size of the copy, at most")
    arguments = options.parse_args()
    deadline = Deadline(arguments.seconds)
    gpu, probes = Gpu(), Probes()
    what = f"rates of the GPU, median of up to {ROUNDS}; deviation of its exponential from FP64"
    results = Results("facts", gpu.info.name, gpu.info, what)
    results.put(driver=nvidia_smi())

    size = min((1 if arguments.small else arguments.mib) << 20, gpu.info.free_bytes // 4)
    seed = int(np.random.default_rng().integers(1 << 30))
    exponents = ex2_bias.exponents(seed, 1 << 12 if arguments.small else ex2_bias.SAMPLES)
    found = probes.exponentials(gpu, exponents.ravel()).reshape(exponents.shape)
    results.put(seed=seed, copied_bytes=size, ex2=ex2_bias.report(exponents, found))

    source, target = gpu.memory(size), gpu.memory(size)
    grid = (4, 32, 16) if arguments.small else (32 * gpu.info.multiprocessors, 256, 4096)
    operations = probes.operations(*grid)
    works = {
        "bytes_read_and_written_per_second": (
            2 * size,
            lambda: gpu.stream.copy(target.pointer, source.pointer, size),
        ),
        "ex2_per_second": (
            operations,
            lambda: probes.rate("ex2", source, grid, gpu.stream),
        ),
        "fma_per_second": (
            operations,
            lambda: probes.rate("fma", source, grid, gpu.stream),
        ),
    }
    rates: dict[str, float] = {}
    for name, (amount, work) in works.items():
        if deadline.passed():
            results.leave_out(name)
            continue
        graph = gpu.graph(work)
        seconds = [gpu.seconds(graph)]
        while len(seconds) < ROUNDS and not deadline.passed():
            seconds.append(gpu.seconds(graph))
        rates[name] = amount / median(seconds)
        results.put(rates=rates)
    results.finish()
    return 0


if __name__ == "__main__":
    step(main)
