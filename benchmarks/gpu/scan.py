"""Step 3, the scan's speed: ours, mamba-ssm's, and one loop per channel, in one run.

    python benchmarks/gpu/scan.py [--lengths 4096,65536] [--batches 1,8] [--rounds 50]

D = 120, N = 16, FP32 and FP16. Every contestant is a CUDA graph over as many sets of tensors as
exceed the L2 cache three times; a time is that of one set, the median of the rounds. Reported
beside it: the ratio to mamba-ssm, and the fraction of the floor, which is the larger of
exponentials at the measured rate of ex2 and bytes at the measured bandwidth (facts.py's results of
the same run). mamba-ssm's tensors lie as it wants them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from tools import RESULTS, Gpu, Probes, Scan, median, prefix, write

from dvmsr.errors import DvmsrError
from dvmsr.runtime.bench.timing import interleave

CHANNELS, STATE = 120, 16
LENGTHS, BATCHES = "4096,16384,65536,172890", "1,8"
MAX_BYTES = 8 << 30
"""Of tensors in one contestant's sets."""


def inputs(batch: int, length: int, seed: int) -> dict[str, np.ndarray]:
    """Of the size and kind that the network has: A = -1 ... -16, delta around softplus(-4)."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    return {
        "u": normal(batch, length, CHANNELS),
        "delta": normal(batch, length, CHANNELS),
        "A": -np.tile(np.arange(1, STATE + 1, dtype=np.float32), (CHANNELS, 1)),
        "B": normal(batch, length, 1, STATE),
        "C": normal(batch, length, 1, STATE),
        "D": normal(CHANNELS),
        "delta_bias": np.full(CHANNELS, -4, np.float32),
        "h0": np.zeros((batch, CHANNELS, STATE), np.float32),
        "z": normal(batch, length, CHANNELS),
    }


def floor(batch: int, length: int, word: int, rates: dict[str, float]) -> dict[str, float]:
    """Seconds that no kernel can be faster than, by exponentials and by bytes."""
    tokens = batch * length
    exponentials = tokens * CHANNELS * STATE
    moved = tokens * (4 * CHANNELS + 2 * STATE) * word
    return {
        "exponentials_s": exponentials / rates["ex2_per_second"],
        "bytes_s": moved / rates["bytes_read_and_written_per_second"],
    }


def mamba(sets: int, batch: int, length: int, dtype: str) -> Callable[[], float]:
    """mamba-ssm on tensors (B, D, L); raises ImportError without it."""
    import torch
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    half = getattr(torch, dtype)

    def on_gpu(array: np.ndarray, activation: bool) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).cuda()
        return tensor.to(half).flatten(2).mT.contiguous() if activation else tensor

    calls = []
    for seed in range(sets):
        t = {
            name: on_gpu(value, name in ("u", "delta", "B", "C", "z"))
            for name, value in inputs(batch, length, seed).items()
        }
        order = [t[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
        calls.append(lambda order=order: selective_scan_fn(*order, delta_softplus=True))

    def run() -> None:
        with torch.no_grad():
            for call in calls:
                call()

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def seconds() -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        graph.replay()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / sets

    return seconds


def contestants(
    gpu: Gpu, probes: Probes | None, batch: int, length: int, dtype: str
) -> dict[str, Callable[[], float]]:
    """By name, what runs all sets and tells the seconds of one."""
    word = 4 if dtype == "float32" else 2
    size = batch * length * (4 * CHANNELS + 2 * STATE) * word
    sets = max(2, min(-(-3 * gpu.info.l2_bytes // size), MAX_BYTES // size))
    scans = [Scan(gpu, inputs(batch, length, seed), dtype) for seed in range(sets)]

    def timed(work: Callable[[Scan], None]) -> Callable[[], float]:
        graph = gpu.graph(lambda: [work(scan) for scan in scans] and None)
        return lambda: gpu.seconds(graph) / len(scans)  # the graph alone would not keep the tensors

    found = {"dvmsr": timed(Scan.launch)}
    if probes:
        found["loop per channel"] = timed(
            lambda scan: probes.scan_per_channel(scan.params, gpu.stream)
        )
    try:
        found["mamba-ssm"] = mamba(sets, batch, length, dtype)
    except Exception as error:
        print(f"mamba-ssm does not take part: {error}", file=sys.stderr)
    return found


def measured_rates(gpu: Gpu) -> dict[str, float] | None:
    """What facts.py found in this run."""
    path = RESULTS / f"{prefix(gpu.info.name)}-facts.json"
    if not path.is_file():
        print(f"no floor: {path.name} is missing; run facts.py first", file=sys.stderr)
        return None
    rates: dict[str, float] = json.loads(path.read_text())["rates"]
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default=LENGTHS)
    parser.add_argument("--batches", default=BATCHES)
    parser.add_argument("--dtypes", default="float32,float16")
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    gpu = Gpu()
    rates = measured_rates(gpu)
    try:
        probes = Probes()
    except DvmsrError as error:
        print(f"no loop per channel: {error}", file=sys.stderr)
        probes = None
    found = []
    for batch in map(int, arguments.batches.split(",")):
        for length in map(int, arguments.lengths.split(",")):
            for dtype in arguments.dtypes.split(","):
                runs = contestants(gpu, probes, batch, length, dtype)
                times = interleave(list(runs.values()), arguments.rounds, warmup=3)
                seconds = {name: median(t) for name, t in zip(runs, times, strict=True)}
                one: dict[str, Any] = {"batch": batch, "length": length, "dtype": dtype}
                one["median_us"] = {name: 1e6 * s for name, s in seconds.items()}
                if "mamba-ssm" in seconds:
                    one["times_faster_than_mamba_ssm"] = seconds["mamba-ssm"] / seconds["dvmsr"]
                if rates:
                    word = 4 if dtype == "float32" else 2
                    one["floor"] = floor(batch, length, word, rates)
                    one["fraction_of_floor"] = max(one["floor"].values()) / seconds["dvmsr"]
                found.append(one)
                print(one, file=sys.stderr)
    what = f"selective scan, D {CHANNELS}, N {STATE}, median of {arguments.rounds}"
    write("scan", gpu.info, {"what": what, "rates": rates, "scans": found})


if __name__ == "__main__":
    main()
