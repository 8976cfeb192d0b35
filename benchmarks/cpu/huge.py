"""Memory and time of `dvmsr-infer` on a picture that is never in memory as a whole.

    python benchmarks/cpu/huge.py [--size 10000x10000] [--memory 1G] [--threads N] [--format tif]
                                  [--folder FOLDER]

Makes a synthetic picture by strips, enlarges it in a process of its own, and stores the peak of
that process's resident memory. FOLDER holds both pictures until the end: at 10000x10000 up to 0.3
GB and 4.8 GB. Needs the extra `large`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import write
from numpy.typing import NDArray

from dvmsr.runtime.bench import machine
from dvmsr.runtime.images.rows.writer import writing_rows

INFER = "from dvmsr.runtime.cli import main; main()"
ROWS = 64


def synthetic_rows(start: int, stop: int, width: int) -> NDArray[np.uint8]:
    """Rows (stop - start, width, 3) of waves of many lengths, with noise."""
    y = np.arange(start, stop, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None]
    noise = np.random.default_rng(start).standard_normal((stop - start, width, 3), np.float32)
    bands = [
        128 + 60 * np.sin(x / length + y / 31) * np.cos(y / (2 * length)) + 30 * np.sin(x * y)
        for length in (7, 47, 87)
    ]
    return np.clip(np.stack(bands, -1) + 4 * noise, 0, 255).astype(np.uint8)


def make(path: Path, height: int, width: int) -> None:
    """A TIFF of that size."""
    with writing_rows(path, "TIFF", str(path), height, width, "RGB") as out:
        for start in range(0, height, ROWS):
            out.write(synthetic_rows(start, min(start + ROWS, height), width))


def measured(source: Path, target: Path, memory: str, threads: int | None) -> dict[str, object]:
    """What `dvmsr-infer --json` tells, and the most memory that it had resident, in MiB."""
    command = [sys.executable, "-c", INFER, str(source), "-o", str(target), "--json"]
    command += ["--memory", memory, *(["--threads", str(threads)] if threads else [])]
    with tempfile.TemporaryFile("w+") as report:
        process = subprocess.Popen(command, stdout=report)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(process.returncode)
        report.seek(0)
        [result] = json.load(report)
    # Counts what this process had when it forked, too, which is less.
    return {**result, "peak_resident_MiB": round(usage.ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="10000x10000", help="HxW of the input")
    parser.add_argument("--memory", default="1G", help="as of dvmsr-infer")
    parser.add_argument("--threads", type=int, help="as of dvmsr-infer")
    parser.add_argument("--format", default="tif", choices=["tif", "png", "jpg"])
    parser.add_argument("--folder", help="for both pictures; default: that for temporary files")
    arguments = parser.parse_args()
    height, width = (int(n) for n in arguments.size.split("x"))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, target = Path(folder, "in.tif"), Path(folder, f"out.{arguments.format}")
        make(source, height, width)
        load = [os.getloadavg()[0]]
        result = measured(source, target, arguments.memory, arguments.threads)
        load.append(os.getloadavg()[0])
        sizes = {"input_bytes": source.stat().st_size, "output_bytes": target.stat().st_size}
    kept = ("input_size", "output_size", "seconds", "strip", "peak_resident_MiB", "backend")
    write(
        f"huge-{arguments.size}",
        {
            "what": f"synthetic picture of {arguments.size}, TIFF to {arguments.format}, by rows",
            "machine": machine.describe(),
            "load_average_before_and_after": load,
            "threads": arguments.threads or "all",
            "memory_option": arguments.memory,
            **{name: result[name] for name in kept},
            **sizes,
        },
    )


if __name__ == "__main__":
    main()
