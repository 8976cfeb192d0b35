"""Step 4, the whole network in PyTorch on this GPU, against mamba-ssm's layers and against RLFN.

    python benchmarks/gpu/network.py DVMSR_CHECKPOINT [RLFN_CHECKPOINT] [--sizes 256x256,339x510]

In one run, FP32 and FP16, batch 1: the network with mamba-ssm's operators, eager; with dvmsr's,
eager and as a CUDA graph; RLFN, if its checkpoint is given, eager and as a CUDA graph. Each one's
output is held to FP32 PyTorch on the CPU, and has the peak of PyTorch's memory while it runs alone
beside its time. ONNX Runtime and TensorRT are measured by `dvmsr bench` (`models.py`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from race import race
from results import Deadline, Pace, Results, parser, step
from tools import Gpu

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rlfn

from dvmsr import checkpoint, ops
from dvmsr.errors import MissingComponentError
from dvmsr.runtime.bench.timing import summarise

Network = Callable[[torch.Tensor], torch.Tensor]
PEAK = {"dvmsr": 1.0, "rlfn": 255.0}
"""The largest value of a picture, as each network takes and gives it."""


def elapsed(work: Callable[[], Any]) -> float:
    """Seconds on PyTorch's stream."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def with_mamba_ssm(network: Network) -> Network:
    """The network on mamba-ssm's operators; raises ImportError without them."""
    import mamba_ssm  # noqa: F401

    def run(image: torch.Tensor) -> torch.Tensor:
        own, ops._has_cuda_kernels = ops._has_cuda_kernels, lambda: False
        try:
            return network(image)
        finally:
            ops._has_cuda_kernels = own

    return run


def half(model: torch.nn.Module) -> torch.nn.Module:
    """The network in half precision, but for what the scan takes in FP32."""
    kept = {
        name: parameter.clone()
        for name, parameter in model.named_parameters()
        if name.endswith(("A_log", "A_b_log", ".D", ".D_b", "dt_proj.bias", "dt_proj_b.bias"))
    }
    model.half()
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.data = kept[name]
    return model


def graphed(network: Network, image: torch.Tensor) -> Callable[[], torch.Tensor]:
    """One launch that computes the network for this image."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(image)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = network(image)

    def launch() -> torch.Tensor:
        graph.replay()
        return output

    return launch


def contestants(
    models: dict[str, torch.nn.Module], images: dict[str, torch.Tensor]
) -> dict[str, tuple[str, Callable[[], torch.Tensor]]]:
    """By name, the model and what computes it; those that fail are said and left out."""
    found: dict[str, tuple[str, Callable[[], torch.Tensor]]] = {}

    def eager(network: Network, image: torch.Tensor) -> Callable[[], torch.Tensor]:
        return lambda: network(image)

    makers: dict[str, tuple[str, Callable[[Network, torch.Tensor], Callable[[], torch.Tensor]]]]
    makers = {
        "dvmsr, mamba-ssm, eager": ("dvmsr", lambda n, image: eager(with_mamba_ssm(n), image)),
        "dvmsr, eager": ("dvmsr", eager),
        "dvmsr, CUDA graph": ("dvmsr", graphed),
        "RLFN, eager": ("rlfn", eager),
        "RLFN, CUDA graph": ("rlfn", graphed),
    }
    for name, (model, make) in makers.items():
        if model not in models:
            continue
        try:
            work = make(models[model], images[model])
            work()
        except Exception as error:
            print(f"{name} does not take part: {error}", file=sys.stderr)
        else:
            found[name] = model, work
    return found


def difference(output: torch.Tensor, truth: torch.Tensor, peak: float) -> dict[str, float]:
    """Largest deviation as a part of the peak, and PSNR in dB."""
    deviation = (output.detach().double().cpu() - truth.double()) / peak
    mean_square = float(deviation.square().mean())
    psnr = -10 * torch.log10(torch.tensor(mean_square)).item() if mean_square else float("inf")
    return {"max_abs": float(deviation.abs().max()), "psnr_db": psnr}


def full_precision() -> None:
    """FP32 means FP32: PyTorch else rounds what convolutions multiply to TF32's ten bits."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def peak_bytes(work: Callable[[], Any]) -> int:
    """Of PyTorch's memory while it runs, with what all models and graphs hold besides."""
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated())


@torch.inference_mode()
def main() -> int:
    options = parser(__doc__)
    options.add_argument("dvmsr", type=Path)
    options.add_argument("rlfn", type=Path, nargs="?")
    options.add_argument("--sizes", default="256x256,339x510", help="HxW of the input")
    options.add_argument("--rounds", type=int, default=50)
    arguments = options.parse_args()
    if not torch.cuda.is_available():
        raise MissingComponentError("PyTorch sees no GPU here; install PyTorch with CUDA")
    if arguments.small:
        arguments.sizes, arguments.rounds = "16x16", 3
    full_precision()
    deadline = Deadline(arguments.seconds)
    gpu = Gpu()
    what = f"whole network in PyTorch, batch 1, up to {arguments.rounds} rounds"
    results = Results("network", gpu.info.name, gpu.info, what)
    results.put(checkpoint=arguments.dvmsr.name, runs=[])
    if arguments.rlfn is None:
        print("RLFN does not take part: no checkpoint of it is given", file=sys.stderr)
    on_cpu: dict[str, torch.nn.Module] = {"dvmsr": checkpoint.load(arguments.dvmsr).eval()}
    if arguments.rlfn:
        on_cpu["rlfn"] = rlfn.load(arguments.rlfn).eval()
    pace = Pace(deadline)
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes.split(",")]
    for number, (height, width) in enumerate(sizes):
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        if not pace.allows(height * width):
            results.leave_out(f"{height}x{width}")
            continue
        with pace.timed(height * width):
            truth = {name: model(PEAK[name] * image) for name, model in on_cpu.items()}
            for dtype in (torch.float16, torch.float32):
                allowed = deadline.left() / (2 * (len(sizes) - number) + 1)
                rounds = arguments.rounds, min(allowed, 60.0)
                for one in measure(arguments, image, truth, dtype, rounds):
                    results.add("runs", one)
                    print(one, file=sys.stderr)
    results.finish()
    return 0


def measure(
    arguments: Any,
    image: torch.Tensor,
    truth: dict[str, torch.Tensor],
    dtype: torch.dtype,
    rounds: tuple[int, float],
) -> list[dict[str, Any]]:
    """One size and type; `rounds` are their number and the seconds for them."""
    models: dict[str, torch.nn.Module] = {"dvmsr": checkpoint.load(arguments.dvmsr).eval().cuda()}
    if dtype == torch.float16:
        models["dvmsr"] = half(models["dvmsr"])
    if arguments.rlfn:
        models["rlfn"] = rlfn.load(arguments.rlfn).eval().cuda().to(dtype)
    images = {name: (PEAK[name] * image).cuda().to(dtype) for name in models}
    runs = contestants(models, images)
    times = race({n: functools.partial(elapsed, w) for n, (_, w) in runs.items()}, *rounds)
    base = next(iter(runs), "")
    found = []
    for name, (model, work) in runs.items():
        together = min(len(times[name]), len(times[base]))
        summary = summarise(times[name][:together], times[base][:together])
        found.append(
            {
                "name": name, "size": f"{image.shape[2]}x{image.shape[3]}",
                "dtype": str(dtype).removeprefix("torch."), "rounds": len(times[name]),
                "times": asdict(summary), "ratio_to": base,
                "against_cpu_fp32": difference(work(), truth[model], PEAK[model]),
                "peak_bytes": peak_bytes(work),
            }
        )  # fmt: skip
    return found


if __name__ == "__main__":
    step(main)
