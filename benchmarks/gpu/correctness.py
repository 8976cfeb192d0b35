"""Step 1, correct: the kernels on the device against FP64, with fresh random inputs each run.

    python benchmarks/gpu/correctness.py [--small] [--seed N]

Forward: the shared test vectors and large shapes, in every plan that a tactic makes of them, eager
and in a CUDA graph; backward: the gradients against those of the CPU library in FP64. Exit code 3
where a result is off.

A limit is the tolerance of the type, as everywhere, plus what the bias of ex2.approx that
`facts.py` measured in this run does to these inputs: how far an FP64 scan with so biased
decays is off. Each check says both parts. Without facts of this run the bias counts as zero.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ex2_bias
import numpy as np
from numpy.typing import NDArray
from results import OFF, Deadline, Pace, Results, parser, read, step
from tools import Gpu, Scan

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
from dvmsr.utils.threads import cores

TOLERANCES = {name: TOLERANCE.get(name, 1.6e-2) for name in cuda.DTYPES}
GRADIENTS = 2.0
"""How much more than an output a gradient may be off: it multiplies states by the adjoint's,
and both are made of the same decays and roundings."""
TAKEN = [case for case in SCAN_CASES if case.state <= 64 and not case.channel_major]
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


class Limits:
    """What may be off, and why.

    Args:
        measured: the bias of ex2.approx as `facts.py` reports it, if it did.
    """

    def __init__(self, measured: dict[str, Any] | None) -> None:
        self._measured = measured

    def explain(self) -> dict[str, Any]:
        """JSON-ready."""
        if self._measured is None:
            bias = (
                "taken as zero, as there are no facts of this run (facts.py measures it): slow "
                "decays get the plain tolerance"
            )
        else:
            bias = (
                "as facts.py measured it; limit_of_bias is what an FP64 scan of the same inputs is "
                "off when every decay is off by the mean of its exponents"
            )
        return {
            "tolerance": TOLERANCES,
            "ex2_bias": bias,
            "largest_mean_ulp": self._measured and self._measured["largest_mean_ulp"],
            "limit": "tolerance + limit_of_bias; twice that for gradients",
        }

    def of_bias(self, inputs: Arrays, softplus: bool, truths: tuple[NDArray[Any], ...]) -> float:
        """How far the measured bias alone puts a scan off; 0 where none was measured."""
        measured = self._measured
        if measured is None:
            return 0.0
        off = scan_truth(inputs, softplus, off=lambda decays: ex2_bias.biased(decays, measured))
        return max(error(one, true) for one, true in zip(off, truths, strict=True))


class ScanCheck:
    """A scan's inputs as the device sees them, its truth, and how far results may be off."""

    def __init__(
        self, case: ScanCase, dtype: str, seed: int, measured: dict[str, Any] | None
    ) -> None:
        self.case, self.dtype = case, dtype
        self.inputs = rounded(scan_inputs(case, seed), dtype)
        self.truths = scan_truth(self.inputs, case.softplus)
        self.tolerance = TOLERANCES[dtype]
        self.of_bias = Limits(measured).of_bias(self.inputs, case.softplus, self.truths)

    def verdict(
        self, operator: str, deviation: float, factor: float, ok: bool = True, **more: Any
    ) -> dict[str, Any]:
        """One check, JSON-ready."""
        limit = factor * (self.tolerance + self.of_bias)
        return {
            "operator": operator, "case": str(self.case), "dtype": self.dtype, **more,
            "error": deviation, "limit": limit, "limit_of_bias": factor * self.of_bias,
            "ok": ok and deviation <= limit,
        }  # fmt: skip


def scan_errors(gpu: Gpu, check: ScanCheck) -> Iterator[dict[str, Any]]:
    plans = set()
    for tactic in range(1 + gpu.library.scan_tactics()):
        scan = Scan(gpu, check.inputs, check.dtype, tactic, check.case.softplus)
        if str(scan.plan) in plans:
            continue
        plans.add(str(scan.plan))
        scan.launch()
        eager = scan.results()
        graph = gpu.stream.record(scan.launch)
        graph.launch()
        replayed = scan.results()
        deviation = max(error(one, true) for one, true in zip(eager, check.truths, strict=True))
        same = all(np.array_equal(a, b) for a, b in zip(eager, replayed, strict=True))
        yield check.verdict("scan", deviation, 1.0, same, plan=str(scan.plan), graph_is_equal=same)


def scan_gradient_errors(gpu: Gpu, check: ScanCheck, seed: int) -> dict[str, Any]:
    inputs, dtype, softplus = check.inputs, check.dtype, check.case.softplus
    rng = np.random.default_rng(seed)
    y_grad = rng.integers(-8, 9, inputs["u"].shape) / 8  # exact in every type
    h_grad = rng.integers(-8, 9, inputs["h0"].shape) / 8
    truths = cpu_gradients(inputs, softplus, y_grad, h_grad)

    scan = Scan(gpu, inputs, dtype, softplus=softplus)
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
    return check.verdict("scan gradients", worst, GRADIENTS, worst_gradient=where)


def cpu_gradients(
    inputs: Arrays, softplus: bool, y_grad: NDArray[Any], h_grad: NDArray[Any]
) -> Arrays:
    """The CPU library's gradients in FP64."""
    double = {name: np.ascontiguousarray(v, np.float64) for name, v in inputs.items()}
    gradients = {name: np.empty_like(v) for name, v in double.items()}
    kind = cpu.DTYPES["float64"], softplus, False
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


class Ahead:
    """Makes checks in other processes, in their order, while the device works on those before: a
    truth is walked token by token. With fewer than two processors, each when it is wanted."""

    def __init__(self, processors: int) -> None:
        self._pool = (
            multiprocessing.get_context("spawn").Pool(min(processors, len(cuda.DTYPES) * 2))
            if processors > 2
            else None
        )

    def made(
        self, jobs: list[tuple[ScanCase, str, int, dict[str, Any] | None]]
    ) -> dict[tuple[ScanCase, str], Callable[[], ScanCheck]]:
        """What waits for each."""
        if self._pool is None:
            return {job[:2]: functools.partial(ScanCheck, *job) for job in jobs}
        return {job[:2]: self._pool.apply_async(ScanCheck, job).get for job in jobs}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.terminate()


def work(case: ScanCase) -> float:
    """About what a case costs: its truth is walked token by token."""
    return case.length * (200 + case.batch * case.channels * case.state / 100)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--seed", type=int, help="by default another each time")
    arguments = options.parse_args()
    deadline = Deadline(arguments.seconds)
    seed = arguments.seed
    if seed is None:
        seed = int(np.random.default_rng().integers(1 << 30))
    print(f"seed {seed}", file=sys.stderr)
    gpu = Gpu()
    facts = read("facts", gpu.info.name) or {}
    limits = Limits(facts.get("ex2"))
    what = "largest error relative to the largest magnitude"
    results = Results("correct", gpu.info.name, gpu.info, what)
    results.put(seed=seed, limits=limits.explain(), checks=[])
    print(f"bias of ex2.approx: {limits.explain()['ex2_bias']}", file=sys.stderr)
    wrong = 0

    def note(found: dict[str, Any]) -> None:
        nonlocal wrong
        results.add("checks", found)
        if not found["ok"]:
            wrong += 1
            print(f"off: {found}", file=sys.stderr)

    cases = SMALL if arguments.small else [*TAKEN, *LARGE]
    with_gradients = SMALL if arguments.small else [*TAKEN, LARGE[0]]
    for dtype in cuda.DTYPES:
        for conv in CONV_CASES:
            note(conv_error(gpu, conv, dtype, seed))
    pace = Pace(deadline)
    jobs = [(case, dtype) for case in sorted(cases, key=work) for dtype in cuda.DTYPES]
    with Ahead(0 if arguments.small else cores()) as ahead:
        checks = ahead.made([(*job, seed, facts.get("ex2")) for job in jobs])
        for case, dtype in jobs:
            if not pace.allows(work(case)):
                results.leave_out(f"{case} {dtype}")
                continue
            with pace.timed(work(case)):
                check = checks[case, dtype]()
                for found in scan_errors(gpu, check):
                    note(found)
                if case in with_gradients:
                    note(scan_gradient_errors(gpu, check, seed))
    results.finish()
    print(f"{len(results.content['checks'])} checks, {wrong} off", file=sys.stderr)
    return OFF if wrong else 0


if __name__ == "__main__":
    step(main)
