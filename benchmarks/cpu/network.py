"""The whole network in ONNX Runtime on a CPU against RLFN in the same run, and its profile.

    python benchmarks/cpu/network.py DVMSR_CHECKPOINT RLFN_CHECKPOINT [--size 256x256] [--threads 2]

Contestants, in FP32 with the same number of threads, in turn: ours at once, ours by the strips that
`Upscaler` takes of its own accord, and RLFN exported to ONNX, at once.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import race, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rlfn

from dvmsr.export import export_onnx
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.bench import machine
from dvmsr.runtime.bench.probe import probe
from dvmsr.runtime.upscaler import Upscaler


def session(path: Path, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op_num_threads", str(threads))
    # Threads of one contestant would else go on spinning while the next runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.register_custom_ops_library(str(cpu.library_path()))
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def by_node(trace: Path, runs: int) -> list[dict[str, Any]]:
    """Milliseconds per run of each node, the most expensive first."""
    total: collections.Counter[tuple[str, str]] = collections.Counter()
    for event in json.loads(trace.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            total[name, event["args"]["op_name"]] += event["dur"]
    return [{"node": n, "op": op, "ms": us / 1e3 / runs} for (n, op), us in total.most_common()]


def peak_memory(model: Path, height: int, width: int, threads: int) -> float:
    """MiB of resident memory that one run adds at its peak, in a process of its own."""
    found = probe(f"{model}:native", threads, (1, height, width))
    assert found.peak_bytes is not None and found.loaded_bytes is not None
    return (found.peak_bytes - found.loaded_bytes) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dvmsr", type=Path)
    parser.add_argument("rlfn", type=Path)
    parser.add_argument("--size", default="256x256", help="HxW of the input")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--races", type=int, default=5)
    arguments = parser.parse_args()
    height, width = (int(n) for n in arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        ours, streaming, theirs = (
            Path(folder, f"{name}.onnx") for name in ("dvmsr", "streaming", "rlfn")
        )
        export_onnx(arguments.dvmsr, ours, verify=False)
        export_onnx(arguments.dvmsr, streaming, verify=False, streaming=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                rlfn.load(arguments.rlfn),
                (torch.zeros(1, 3, height, width),),
                str(theirs),
                input_names=["input"],
                dynamo=False,
            )
        image = np.random.default_rng(0).random((1, 3, height, width), np.float32)
        upscaler = Upscaler.from_file(streaming, "native", arguments.threads)
        rows = upscaler.rows_at_once(height, width)

        def by_strips() -> np.ndarray:
            strips = np.split(image, range(rows, height, rows), 2)
            return np.concatenate(list(upscaler.network.stream(strips)), 2)

        sessions = {
            "dvmsr": session(ours, arguments.threads),
            "rlfn": session(theirs, arguments.threads),
        }
        runs = {n: (lambda s=s: s.run(None, {"input": image})) for n, s in sessions.items()}
        runs["dvmsr_strips"] = by_strips
        times = race(runs, "rlfn", arguments.rounds, 2, arguments.races)

        profiled = session(ours, arguments.threads, Path(folder, "trace"))
        for _ in range(3):
            profiled.run(None, {"input": image})
        nodes = by_node(Path(profiled.end_profiling()), 3)
        peak = peak_memory(ours, height, width, arguments.threads)

    by_op: collections.Counter[str] = collections.Counter()
    for node in nodes:
        by_op[node["op"]] += node["ms"]
    total = sum(by_op.values())
    threads = "" if arguments.threads == 2 else f"-{arguments.threads}-threads"
    write(
        f"cpu-network-{arguments.size}{threads}-{cpu.isa()}",
        {
            "what": f"image of {arguments.size}, FP32, batch 1, threads: {arguments.threads}",
            "machine": machine.describe(),
            "rounds": arguments.rounds,
            "races": arguments.races,
            "base": "rlfn",
            "rows_of_a_strip": rows,
            "times": times,
            "peak_memory_MiB": peak,
            "share_by_operator": {op: round(ms / total, 3) for op, ms in by_op.most_common()},
            "most_expensive_nodes": nodes[:12],
        },
    )


if __name__ == "__main__":
    main()
