"""Step 4, the whole network in PyTorch on this GPU, against mamba-ssm's layers and against RLFN.

    python benchmarks/gpu/network.py DVMSR_CHECKPOINT RLFN_CHECKPOINT [--sizes 256x256,339x510]

In one run, FP32 and FP16, batch 1: the network with mamba-ssm's operators, eager; with dvmsr's,
eager and as a CUDA graph; RLFN, eager and as a CUDA graph. Each one's output is held to FP32
PyTorch on the CPU. ONNX Runtime and TensorRT are measured by `dvmsr bench`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tools import Gpu, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rlfn

from dvmsr import checkpoint, ops
from dvmsr.runtime.bench.timing import interleave, summarise

Network = Callable[[torch.Tensor], torch.Tensor]


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
    models: dict[str, torch.nn.Module], image: torch.Tensor
) -> dict[str, tuple[str, Callable[[], torch.Tensor]]]:
    """By name, the model and what computes it; those that fail are said and left out."""
    found: dict[str, tuple[str, Callable[[], torch.Tensor]]] = {}

    def eager(network: Network) -> Callable[[], torch.Tensor]:
        return lambda: network(image)

    makers: dict[str, tuple[str, Callable[[Network], Callable[[], torch.Tensor]]]] = {
        "dvmsr, mamba-ssm, eager": ("dvmsr", lambda network: eager(with_mamba_ssm(network))),
        "dvmsr, eager": ("dvmsr", eager),
        "dvmsr, CUDA graph": ("dvmsr", lambda network: graphed(network, image)),
        "RLFN, eager": ("rlfn", eager),
        "RLFN, CUDA graph": ("rlfn", lambda network: graphed(network, image)),
    }
    for name, (model, make) in makers.items():
        try:
            work = make(models[model])
            work()
        except Exception as error:
            print(f"{name} does not take part: {error}", file=sys.stderr)
        else:
            found[name] = model, work
    return found


def difference(output: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Largest deviation, and PSNR in dB for a peak of 1."""
    deviation = output.detach().double().cpu() - truth.double()
    mean_square = float(deviation.square().mean())
    psnr = -10 * torch.log10(torch.tensor(mean_square)).item() if mean_square else float("inf")
    return {"max_abs": float(deviation.abs().max()), "psnr_db": psnr}


def full_precision() -> None:
    """FP32 means FP32: PyTorch else rounds what convolutions multiply to TF32's ten bits."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dvmsr", type=Path)
    parser.add_argument("rlfn", type=Path)
    parser.add_argument("--sizes", default="256x256,339x510", help="HxW of the input")
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch has no GPU here; run this on one")
    full_precision()
    on_cpu = {
        "dvmsr": checkpoint.load(arguments.dvmsr).eval(),
        "rlfn": rlfn.load(arguments.rlfn).eval(),
    }
    found = []
    for size in arguments.sizes.split(","):
        height, width = map(int, size.split("x"))
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        truth = {name: model(image) for name, model in on_cpu.items()}
        for dtype in (torch.float32, torch.float16):
            models = {
                "dvmsr": checkpoint.load(arguments.dvmsr).eval().cuda(),
                "rlfn": rlfn.load(arguments.rlfn).eval().cuda().to(dtype),
            }
            if dtype == torch.float16:
                models["dvmsr"] = half(models["dvmsr"])
            runs = contestants(models, image.cuda().to(dtype))
            torch.cuda.reset_peak_memory_stats()
            timed = [lambda work=work: elapsed(work) for _, work in runs.values()]
            times = interleave(timed, arguments.rounds, warmup=5)
            for (name, (model, work)), own in zip(runs.items(), times, strict=True):
                one = {
                    "name": name, "size": size, "dtype": str(dtype).removeprefix("torch."),
                    "times": asdict(summarise(own, times[0])),
                    "ratio_to": next(iter(runs)),
                    "against_cpu_fp32": difference(work(), truth[model]),
                }  # fmt: skip
                found.append(one)
                print(one, file=sys.stderr)
    peak = torch.cuda.max_memory_allocated()
    write("network", Gpu().info, {"what": "whole network in PyTorch, batch 1",
          "peak_bytes_of_all_together": peak, "runs": found})  # fmt: skip


if __name__ == "__main__":
    main()
