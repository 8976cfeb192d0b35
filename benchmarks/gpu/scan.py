"""Step 3, the scan's speed: ours, mamba-ssm's, and one loop per channel, in one run.

    python benchmarks/gpu/scan.py [--lengths 4096,65536] [--batches 1,8] [--inputs official,student]

FP32 and FP16, on inputs drawn from what was captured of the official weights and of the bundled
student (`captured.py`): how far our scan walks back depends on them. Ours takes part as its
cost model cuts the sequence, and in every other plan of several parts that a tactic makes of
it, so that variants, numbers of parts and the cost model are measured together. Every
contestant is a CUDA graph over the scans of all layers, in as many sets of tensors as exceed
the L2 cache three times; a time is that of one scan, the median of the rounds. The loop per
channel runs the first layer alone: its time does not depend on the inputs. Reported beside it:
the ratio to mamba-ssm, and the fraction of the floor, which is the larger of exponentials at
the measured rate of ex2 and bytes at the measured bandwidth (facts.py's results of the same
run). mamba-ssm's tensors lie as it wants them. What was asked of the scan first (batch 1, FP16,
long sequences) is measured first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import captured
import numpy as np
from predictions import scan_us
from race import race
from results import Deadline, Pace, Results, parser, read, step
from tools import BY_TOKEN, Gpu, Probes, Scan, median

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.kernels import cuda

if TYPE_CHECKING:
    import torch

LENGTHS, BATCHES, DTYPES = "65536,172890,16384,4096", "1,8", "float16,float32"
DRAWN = 16_384
"""Tokens that are drawn per layer; longer sequences repeat them."""
MEMORY = 1 / 4
"""The part of the free memory that one contestant's tensors may take."""


@dataclass(frozen=True)
class Shape:
    """What is measured together."""

    kind: str
    """Whose inputs: `official` or `student`."""
    batch: int
    length: int
    dtype: str

    def __str__(self) -> str:
        return f"B{self.batch} L{self.length} {self.dtype} {self.kind}"

    @property
    def word(self) -> int:
        """Bytes per element."""
        return 4 if self.dtype == "float32" else 2

    def bytes(self, layer: captured.Layer) -> int:
        """That a scan reads and writes, but for what does not grow with the tokens."""
        channels, state = len(layer.slowest), len(layer.ratios)
        return self.batch * self.length * (4 * channels + 2 * state) * self.word

    def exponentials(self, layer: captured.Layer) -> int:
        """Of the decays."""
        return self.batch * self.length * len(layer.slowest) * len(layer.ratios)


def shapes(arguments: Any) -> list[Shape]:
    """In the order in which they are wanted."""
    return [
        Shape(kind, int(batch), int(length), dtype)
        for batch in arguments.batches.split(",")
        for dtype in arguments.dtypes.split(",")
        for length in arguments.lengths.split(",")
        for kind in arguments.inputs.split(",")
    ]


def floor(shape: Shape, layer: captured.Layer, rates: dict[str, float]) -> dict[str, float]:
    """Seconds that no kernel can be faster than, by exponentials and by bytes."""
    return {
        "exponentials_s": shape.exponentials(layer) / rates["ex2_per_second"],
        "bytes_s": shape.bytes(layer) / rates["bytes_read_and_written_per_second"],
    }


def sets(shape: Shape, layers: list[captured.Layer], gpu: Gpu) -> tuple[int, int]:
    """How many layers take part, and how many copies of them exceed the L2 cache three times."""
    size = shape.bytes(layers[0])
    fit = max(1, int(MEMORY * gpu.info.free_bytes) // size)
    taken = min(len(layers), fit)
    return taken, max(1, min(-(-3 * gpu.info.l2_bytes // (taken * size)), fit // taken))


def channel_major(tensor: torch.Tensor, name: str, shape: Shape) -> torch.Tensor:
    """An input of a single sequence as mamba-ssm takes it: what goes by token as (B, D, L), its
    tokens repeated to the shape, in the shape's type."""
    import torch

    if name not in BY_TOKEN:
        return tensor
    times = -(-shape.length // tensor.shape[1])
    tensor = tensor.to(getattr(torch, shape.dtype)).flatten(2).transpose(1, 2)
    return tensor.repeat(shape.batch, 1, times)[:, :, : shape.length].contiguous()


def mamba(drawn: list[dict[str, np.ndarray]], shape: Shape, copies: int) -> Callable[[], float]:
    """mamba-ssm on tensors (B, D, L); raises ImportError without it."""
    import torch
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    torch.cuda.empty_cache()  # what the shape before took

    calls = []
    for inputs in drawn * copies:
        t = {
            name: channel_major(torch.from_numpy(np.ascontiguousarray(value)).cuda(), name, shape)
            for name, value in inputs.items()
        }
        order = [t[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
        calls.append(lambda order=order: selective_scan_fn(*order, delta_softplus=True))

    def run() -> None:
        with torch.no_grad():
            for call in calls:
                call()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
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
        elapsed: float = first.elapsed_time(last) / 1e3 / len(calls)
        return elapsed

    return seconds


def contestants(
    gpu: Gpu,
    probes: Probes | None,
    drawn: list[dict[str, np.ndarray]],
    shape: Shape,
    copies: int,
) -> tuple[str, dict[str, Callable[[], float]]]:
    """The cost model's plan; and by name, what runs all sets and tells the seconds of one scan."""
    own = [Scan(gpu, inputs, shape.dtype, sizes=(shape.batch, shape.length)) for inputs in drawn]
    scans = own + [scan.copy() for _ in range(copies - 1) for scan in own]

    def timed(work: Callable[[Scan], None], scans: list[Scan]) -> Callable[[], float]:
        def all_of_them() -> None:
            for scan in scans:
                work(scan)

        graph = gpu.graph(all_of_them)
        return lambda: gpu.seconds(graph) / len(scans)  # the graph alone would not keep the tensors

    found = {"dvmsr": timed(Scan.launch, scans)}
    chosen = str(own[0].plan)
    for tactic in range(1, 1 + gpu.library.scan_tactics()):
        plan = gpu.library.scan_plan(own[0].params, gpu.info.multiprocessors, tactic)
        if plan.length != cuda.WHOLE and str(plan) not in (chosen, *found):
            found[str(plan)] = timed(Scan.launch, [scan.by(tactic) for scan in scans])
    if probes:
        loops = probes
        found["loop per channel"] = timed(
            lambda scan: loops.scan_per_channel(scan.params, gpu.stream), scans[:1]
        )
    try:
        found["mamba-ssm"] = mamba(drawn, shape, copies)
    except Exception as error:
        print(f"mamba-ssm does not take part: {error}", file=sys.stderr)
    return chosen, found


def measure(
    gpu: Gpu,
    probes: Probes | None,
    layers: list[captured.Layer],
    drawn: list[dict[str, np.ndarray]],
    shape: Shape,
    rates: dict[str, float],
    limits: tuple[int, float],
) -> dict[str, Any]:
    """One shape's row; `limits` are rounds and seconds."""
    taken, copies = sets(shape, layers, gpu)
    plan, runs = contestants(gpu, probes, drawn[:taken], shape, copies)
    times = race(runs, *limits)
    seconds = {name: median(found) for name, found in times.items()}
    one: dict[str, Any] = {
        "inputs": shape.kind, "batch": shape.batch, "length": shape.length, "dtype": shape.dtype,
        "layers": taken, "copies": copies,
        "plan": plan,
        "predicted_us": scan_us(shape.kind, shape.batch, shape.length, shape.dtype),
        "median_us": {name: 1e6 * s for name, s in seconds.items()},
        "rounds": {name: len(found) for name, found in times.items()},
    }  # fmt: skip
    if "mamba-ssm" in seconds:
        one["times_faster_than_mamba_ssm"] = seconds["mamba-ssm"] / seconds["dvmsr"]
    if rates:
        one["floor"] = floor(shape, layers[0], rates)
        one["fraction_of_floor"] = max(one["floor"].values()) / seconds["dvmsr"]
    return one


def measured_rates(gpu: Gpu) -> dict[str, float]:
    """What facts.py found in this run; empty where it did not."""
    rates: dict[str, float] = (read("facts", gpu.info.name) or {}).get("rates", {})
    if not {"ex2_per_second", "bytes_read_and_written_per_second"} <= set(rates):
        print("no floor: the facts of this run are missing; run facts.py first", file=sys.stderr)
        return {}
    return rates


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--lengths", default=LENGTHS)
    options.add_argument("--batches", default=BATCHES)
    options.add_argument("--dtypes", default=DTYPES)
    options.add_argument("--inputs", default="official,student", help="whose statistics")
    options.add_argument("--rounds", type=int, default=50)
    arguments = options.parse_args()
    if arguments.small:
        arguments.lengths, arguments.batches, arguments.dtypes = "64", "1", "float16"
        arguments.rounds = 3
    known = captured.load()
    if unknown := set(arguments.inputs.split(",")) - set(known):
        raise UsageError(f"--inputs {unknown.pop()} is none of {', '.join(known)}")
    deadline = Deadline(arguments.seconds)
    gpu = Gpu()
    rates = measured_rates(gpu)
    try:
        probes: Probes | None = Probes()
    except DvmsrError as error:
        print(f"no loop per channel: {error}", file=sys.stderr)
        probes = None
    what = f"selective scans of a network's layers, median of up to {arguments.rounds} rounds"
    results = Results("scan", gpu.info.name, gpu.info, what)
    weights = {"official": "the paper's student, DF2K", "student": "the bundled student"}
    results.put(
        rates=rates,
        inputs={name: f"drawn from statistics of {of} on a photo" for name, of in weights.items()},
        tokens_drawn=DRAWN,
        scans=[],
    )
    drawn: dict[str, list[dict[str, np.ndarray]]] = {}
    pace, wanted = Pace(deadline), shapes(arguments)
    for number, shape in enumerate(wanted):
        layers = known[shape.kind][: 2 if arguments.small else None]
        if shape.kind not in drawn:
            tokens = min(DRAWN, max(int(length) for length in arguments.lengths.split(",")))
            drawn[shape.kind] = [captured.draw(x, tokens, seed) for seed, x in enumerate(layers)]
        size = shape.bytes(layers[0])
        if not pace.allows(size):
            results.leave_out(str(shape))
            continue
        # More than an equal part: those that come first matter most, and few use it up.
        allowed = min(deadline.left() / (1 + (len(wanted) - number) / 4), 60.0)
        with pace.timed(size):
            limits = arguments.rounds, allowed
            one = measure(gpu, probes, layers, drawn[shape.kind], shape, rates, limits)
        results.add("scans", one)
        print(one, file=sys.stderr)
    results.finish()
    return 0


if __name__ == "__main__":
    step(main)
