"""Step 1, correct: the kernels on the device against FP64, with fresh random inputs each run.

    python benchmarks/gpu/correctness.py [--small] [--seed N]

Forward: the shared test vectors and large shapes, every tactic's chunk length on one of them, eager
and in a CUDA graph; backward: the gradients against those of the CPU library in FP64. Exit code 3
where a result is off. --small is for compute-sanitizer.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tools import Gpu, Scan, write

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))
from vectors import (
    CONV_CASES,
    CONV_INPUTS,
    SCAN_CASES,
    TOLERANCE,
    ConvCase,
    ScanCase,
    conv_inputs,
    conv_truth,
    error,
    scan_inputs,
    scan_truth,
)

from dvmsr.kernels import cpu, cuda
from dvmsr.runtime.backends.trt.half import narrowed, widened

TOLERANCES = {name: TOLERANCE.get(name, 1.6e-2) for name in cuda.DTYPES}
GRADIENTS = 2.0
"""How much more than an output a gradient may be off: it is made of more roundings."""
CHUNKS = (None, 64, 1000, cuda.WHOLE)
"""The cost model's, two others, and the single pass."""
TAKEN = [case for case in SCAN_CASES if case.state <= 64]
"""Those that the kernels take."""
LARGE = [
    ScanCase(1, 4096, 120, 16),
    ScanCase(8, 4096, 120, 16, "slow decay"),
    ScanCase(1, 65536, 121, 16, "fast decay"),
    ScanCase(1, 172890, 120, 16),
    ScanCase(1, 3136, 768, 1, groups=4, gate=False),
]
SMALL = [case for case in TAKEN if case.length < 100]

Arrays = dict[str, NDArray[Any]]


def rounded(inputs: Arrays, dtype: str) -> Arrays:
    """The inputs as the device sees them."""
    half = {"u", "delta", "B", "C", "z", "x", "tail"}
    return {
        name: widened(narrowed(v.astype(np.float32), dtype), dtype)
        if name in half
        else v.astype(np.float32)
        for name, v in inputs.items()
    }


def scan_errors(gpu: Gpu, case: ScanCase, dtype: str, seed: int) -> list[dict[str, Any]]:
    inputs = rounded(scan_inputs(case, seed), dtype)
    truths = scan_truth(inputs, case.softplus)
    found = []
    for chunk in CHUNKS:
        scan = Scan(gpu, inputs, dtype, chunk, case.softplus)
        scan.launch()
        eager = scan.results()
        graph = gpu.stream.record(scan.launch)
        graph.launch()
        replayed = scan.results()
        deviation = max(error(one, true) for one, true in zip(eager, truths, strict=True))
        same = all(np.array_equal(a, b) for a, b in zip(eager, replayed, strict=True))
        limit = TOLERANCES[dtype]
        found.append(
            {"operator": "scan", "case": str(case), "dtype": dtype, "chunk": scan.chunk,
             "error": deviation, "limit": limit, "ok": same and deviation <= limit}
        )  # fmt: skip
    return found


def scan_gradient_errors(gpu: Gpu, case: ScanCase, dtype: str, seed: int) -> dict[str, Any]:
    inputs = rounded(scan_inputs(case, seed), dtype)
    rng = np.random.default_rng(seed)
    y_grad = rng.integers(-8, 9, inputs["u"].shape) / 8  # exact in every type
    h_grad = rng.integers(-8, 9, inputs["h0"].shape) / 8
    truths = cpu_gradients(inputs, case.softplus, y_grad, h_grad)

    scan = Scan(gpu, inputs, dtype, softplus=case.softplus)
    outputs = [gpu.put(y_grad.astype(np.float32), "y", dtype), gpu.put(h_grad.astype(np.float32))]
    gradients = {name: gpu.memory(scan.tensors[name].size) for name in inputs}
    size = gpu.library.workspace("scan_backward", scan.params)
    workspace = gpu.memory(size)
    gpu.library.call(
        "selective_scan_backward",
        ctypes.byref(scan.params),
        ctypes.byref(cuda.ScanOutputGradients(*(m.pointer for m in outputs))),
        ctypes.byref(cuda.ScanGradients(*(m.pointer for m in gradients.values()))),
        workspace.pointer,
        gpu.stream.pointer,
    )
    worst, where = 0.0, ""
    for name, memory in gradients.items():
        off = error(gpu.get(memory, inputs[name].shape, name, dtype), truths[name])
        worst, where = max((worst, where), (off, name))
    limit = GRADIENTS * TOLERANCES[dtype]
    return {"operator": "scan gradients", "case": str(case), "dtype": dtype, "worst": where,
            "error": worst, "limit": limit, "ok": worst <= limit}  # fmt: skip


def cpu_gradients(
    inputs: Arrays, softplus: bool, y_grad: NDArray[Any], h_grad: NDArray[Any]
) -> Arrays:
    """The CPU library's gradients in FP64."""
    double = {name: np.ascontiguousarray(v, np.float64) for name, v in inputs.items()}
    gradients = {name: np.empty_like(v) for name, v in double.items()}
    kind = cpu.DTYPES["float64"], softplus
    sizes = *double["u"].shape, *double["B"].shape[2:]
    pointers = {name: array.ctypes.data for name, array in double.items()}
    cpu.call(
        "selective_scan_backward",
        cpu.ScanInputs(*kind, *sizes, **pointers),
        np.ascontiguousarray(y_grad, np.float64).ctypes.data,
        np.ascontiguousarray(h_grad, np.float64).ctypes.data,
        cpu.ScanGradients(**{name: array.ctypes.data for name, array in gradients.items()}),
        threads=0,
    )
    return gradients


def conv_error(gpu: Gpu, case: ConvCase, dtype: str, seed: int) -> dict[str, Any]:
    inputs = rounded(conv_inputs(case, seed), dtype)
    tensors = {name: gpu.put(inputs[name], name, dtype) for name in CONV_INPUTS}
    y, new_tail = gpu.memory(tensors["x"].size), gpu.memory(tensors["tail"].size)
    pointers = [m.pointer for m in (*tensors.values(), y, new_tail)]
    params = cuda.ConvParams(
        cuda.DTYPES[dtype], case.activation, case.batch, case.length, case.channels, case.width,
        *pointers, case.channels, case.channels,
    )  # fmt: skip
    gpu.library.call("causal_conv1d", ctypes.byref(params), gpu.stream.pointer)
    truths = conv_truth(inputs, case.activation)
    actual = (
        gpu.get(y, inputs["x"].shape, "y", dtype),
        gpu.get(new_tail, inputs["tail"].shape, "new_tail", dtype),
    )
    deviation = max(error(one, true) for one, true in zip(actual, truths, strict=True))
    limit = TOLERANCES[dtype]
    return {"operator": "conv", "case": str(case), "dtype": dtype, "error": deviation,
            "limit": limit, "ok": deviation <= limit}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small shapes only; store nothing")
    parser.add_argument("--seed", type=int, help="by default another each time")
    arguments = parser.parse_args()
    seed = arguments.seed
    if seed is None:
        seed = int(np.random.default_rng().integers(1 << 30))
    print(f"seed {seed}", file=sys.stderr)
    gpu = Gpu()
    found: list[dict[str, Any]] = []
    for dtype in cuda.DTYPES:
        for case in SMALL if arguments.small else [*TAKEN, *LARGE]:
            found += scan_errors(gpu, case, dtype, seed)
        gradient_cases = SMALL if arguments.small else [*TAKEN, LARGE[0]]
        found += [scan_gradient_errors(gpu, case, dtype, seed) for case in gradient_cases]
        found += [conv_error(gpu, case, dtype, seed) for case in CONV_CASES]
    wrong = [one for one in found if not one["ok"]]
    for one in wrong:
        print(f"off: {one}", file=sys.stderr)
    print(f"{len(found)} checks, {len(wrong)} off", file=sys.stderr)
    if not arguments.small:
        write("correctness", gpu.info, {"what": "largest error relative to the largest magnitude",
              "seed": seed, "checks": found})  # fmt: skip
    return 3 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
