"""Throughput and memory of the network against the height of strips and the width of the image.

    python benchmarks/cpu/streaming.py CHECKPOINT [--widths 128 256 510 1024] [--threads 2]

Both files are exported in FP32 and run by ONNX Runtime with the native operators, in turn, on
images of `--height` rows. Memory is the resident memory that one image adds at its peak, in a
process of its own. Prints the table of docs/streaming.md on stderr.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import race, write

from dvmsr.export import export_onnx
from dvmsr.runtime.backends.onnxrt.network import OnnxNetwork
from dvmsr.runtime.backends.onnxrt.streaming import open_onnx
from dvmsr.runtime.bench import machine

HEIGHTS = (8, 16, 32, 64)

MEMORY = """
import sys
from pathlib import Path
import numpy as np
from dvmsr.runtime.backends.onnxrt.streaming import open_onnx

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


def at_width(
    whole: OnnxNetwork, strips: OnnxNetwork, height: int, width: int, rounds: int, threads: int
) -> dict[str, Any]:
    """Times, throughput in megapixels of the input a second, and memory."""
    image = np.random.default_rng(0).random((1, 3, height, width), np.float32)

    def by(rows: int) -> np.ndarray:
        pieces = strips.stream(np.split(image, range(rows, height, rows), 2))
        return np.concatenate(list(pieces), 2)

    expected = whole(image)
    contestants = {"whole": lambda: whole(image)}
    contestants |= {f"strips_of_{n}": (lambda n=n: by(n)) for n in HEIGHTS}
    error = max(float(np.abs(run() - expected).max()) for run in contestants.values())
    times = race(contestants, "whole", rounds)
    memory = {"whole": peak_memory(whole.path, height, width, 0, threads)}
    for n in HEIGHTS:
        memory[f"strips_of_{n}"] = peak_memory(strips.path, height, width, n, threads)
    return {
        "max_abs_difference_to_whole": error,
        "times": times,
        "megapixels_per_second": {
            name: height * width / 1e3 / time["p50_ms"] for name, time in times.items()
        },
        "peak_memory_MiB": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 510, 1024])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    threads, load = arguments.threads, [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        ordinary, streaming = Path(folder, "ordinary.onnx"), Path(folder, "streaming.onnx")
        export_onnx(arguments.checkpoint, ordinary, verify=False)
        export_onnx(arguments.checkpoint, streaming, verify=False, streaming=True)
        whole = open_onnx(ordinary, "native", threads)
        strips = open_onnx(streaming, "native", threads)
        widths = {
            width: at_width(whole, strips, arguments.height, width, arguments.rounds, threads)
            for width in arguments.widths
        }
    load.append(os.getloadavg()[0])
    write(
        "streaming",
        {
            "what": f"images of {arguments.height} rows by strips, FP32, {threads} threads",
            "machine": machine.describe(),
            "load_average_before_and_after": load,
            "rounds": arguments.rounds,
            "by_width": widths,
        },
    )
    names = ["whole", *(f"strips_of_{n}" for n in HEIGHTS)]
    print("| width | " + " | ".join(n.replace("_", " ") for n in names) + " |", file=sys.stderr)
    print("|---|" + "---|" * len(names), file=sys.stderr)
    for width, result in widths.items():
        cells = [
            f"{result['megapixels_per_second'][n] * 1e3:.0f} ({result['times'][n]['ratio']:.2f})"
            for n in names
        ]
        print(f"| {width} | " + " | ".join(cells) + " |", file=sys.stderr)


if __name__ == "__main__":
    main()
