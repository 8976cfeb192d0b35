"""Time and memory of the network by strips of rows, against the whole image at once.

    python benchmarks/cpu/streaming.py CHECKPOINT [--size 256x256] [--threads 2] [--rounds 7]

Both files are exported in FP32 and run by ONNX Runtime with the native operators, in turn. Memory
is the resident memory that one image adds at its peak, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import race, write

from dvmsr.export import export_onnx
from dvmsr.runtime import machine
from dvmsr.runtime.streaming import open_onnx

HEIGHTS = (8, 16, 32, 64)

MEMORY = """
import sys
from pathlib import Path
import numpy as np
from dvmsr.runtime.streaming import open_onnx

def peak():  # of this program alone; getrusage would count its parent's memory
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

path, (height, width, strip, threads) = Path(sys.argv[1]), map(int, sys.argv[2:])
network = open_onnx(path, "native", threads)
before = peak()
if network.streams:
    for _ in network.stream(np.zeros((1, 3, strip, width), np.float32) for _ in range(8)):
        pass
else:
    network(np.zeros((1, 3, height, width), np.float32))
print(peak() - before)
"""


def peak_memory(path: Path, height: int, width: int, strip: int, threads: int) -> float:
    """MiB; by strips without the image and the result, which need not be in memory."""
    numbers = [str(n) for n in (height, width, strip, threads)]
    command = [sys.executable, "-c", MEMORY, str(path), *numbers]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--size", default="256x256", help="HxW of the input")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    height, width = (int(n) for n in arguments.size.split("x"))
    image = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        ordinary, streaming = Path(folder, "ordinary.onnx"), Path(folder, "streaming.onnx")
        export_onnx(arguments.checkpoint, ordinary, verify=False)
        export_onnx(arguments.checkpoint, streaming, verify=False, streaming=True)
        whole = open_onnx(ordinary, "native", arguments.threads)
        strips = open_onnx(streaming, "native", arguments.threads)

        def by(rows: int) -> np.ndarray:
            pieces = strips.stream(np.split(image, range(rows, height, rows), 2))
            return np.concatenate(list(pieces), 2)

        load = [os.getloadavg()[0]]
        expected = whole(image)
        contestants = {"whole": lambda: whole(image), "one_strip": lambda: by(height)}
        contestants |= {f"strips_of_{n}": (lambda n=n: by(n)) for n in HEIGHTS}
        error = max(float(np.abs(run() - expected).max()) for run in contestants.values())
        times = race(contestants, "whole", arguments.rounds)
        load.append(os.getloadavg()[0])
        memory = {"whole": peak_memory(ordinary, height, width, 0, arguments.threads)}
        for n in HEIGHTS:
            memory[f"strips_of_{n}"] = peak_memory(streaming, height, width, n, arguments.threads)
    write(
        f"streaming-{arguments.size}",
        {
            "what": f"image of {arguments.size} by strips, FP32, {arguments.threads} threads",
            "machine": machine.describe(),
            "load_average_before_and_after": load,
            "rounds": arguments.rounds,
            "max_abs_difference_to_whole": error,
            "times": times,
            "peak_memory_MiB_by_height": memory,
        },
    )


if __name__ == "__main__":
    main()
