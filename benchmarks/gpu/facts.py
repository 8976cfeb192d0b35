"""Step 0, the ceilings: what this GPU copies, exponentiates and multiplies in a second.

    python benchmarks/gpu/facts.py [--mib 1024]

All later figures are divided by these.
"""

from __future__ import annotations

import argparse
import subprocess

from tools import Gpu, Probes, median, write

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
    return dict(zip(QUERY.split(","), values, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the copy")
    arguments = parser.parse_args()
    gpu = Gpu()
    size = arguments.mib << 20
    source, target = gpu.memory(size), gpu.memory(size)
    copy = gpu.graph(lambda: gpu.stream.copy(target.pointer, source.pointer, size))
    seconds = median([gpu.seconds(copy) for _ in range(ROUNDS)])
    rates = {"bytes_read_and_written_per_second": 2 * size / seconds}

    probes = Probes()
    grid = 32 * gpu.info.multiprocessors, 256, 4096
    for name in ("ex2", "fma"):
        graph = gpu.graph(lambda name=name: probes.rate(name, source, grid, gpu.stream))
        seconds = median([gpu.seconds(graph) for _ in range(ROUNDS)])
        rates[f"{name}_per_second"] = probes.operations(*grid) / seconds
    what = f"rates of the GPU, median of {ROUNDS}"
    write("facts", gpu.info, {"what": what, "driver": nvidia_smi(), "rates": rates})


if __name__ == "__main__":
    main()
