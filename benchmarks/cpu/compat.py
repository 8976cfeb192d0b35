"""The stand-in for `selective_scan_fn` against a sequential PyTorch loop, forward and backward.

    python benchmarks/cpu/compat.py

Two threads, FP32, batch 1, without a gate: (L 4096, D 480, N 16, G 4) as in MambaIR, (3136, 768, 1,
4) as in VMamba, (197, 384, 16, 1) as in Vim. The loop is the algorithm of mamba-ssm's
`selective_scan_ref`, except that it takes all tensors apart at once: by `x[:, :, i]`, as there, the
backward pass would write gradients of the size of all tokens for each. Its tensors of the size of
all states exist at once, 126 MB each in the first case.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from measure import race, write

from dvmsr.compat.scan import selective_scan_fn
from dvmsr.runtime.bench import machine

SHAPES = [(4096, 480, 16, 4), (3136, 768, 1, 4), (197, 384, 16, 1)]
"""L, D, N, G."""


def inputs(length: int, channels: int, state: int, groups: int) -> list[torch.Tensor]:
    """u, delta, A, B, C, D and delta_bias, channel-major."""
    torch.manual_seed(0)
    tokens, rows = (1, channels, length), (1, groups, state, length)
    tensors = [
        torch.randn(tokens),
        torch.randn(tokens),
        -torch.arange(1.0, state + 1).repeat(channels, 1),
        torch.randn(rows),
        torch.randn(rows),
        torch.randn(channels),
        torch.full((channels,), -4.0),
    ]
    return [tensor.requires_grad_() for tensor in tensors]


def loop(u, delta, A, B, C, D, delta_bias):  # type: ignore[no-untyped-def]
    """Decays and drives of all tokens at once, then a few small PyTorch operations per token."""
    per_group = u.shape[1] // B.shape[1]
    B, C = (t.repeat_interleave(per_group, 1) for t in (B, C))
    delta = F.softplus(delta + delta_bias[:, None])
    decays = torch.exp(torch.einsum("bdl,dn->bdln", delta, A)).unbind(2)
    drives = torch.einsum("bdl,bdnl,bdl->bdln", delta, B, u).unbind(2)
    h = A.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for decay, drive, c in zip(decays, drives, C.unbind(3), strict=True):
        h = decay * h + drive
        outputs.append(torch.einsum("bdn,bdn->bd", h, c))
    return torch.stack(outputs, 2) + u * D[:, None]


def stand_in(u, delta, A, B, C, D, delta_bias):  # type: ignore[no-untyped-def]
    return selective_scan_fn(u, delta, A, B, C, D, None, delta_bias, True)


def measure(shape: tuple[int, ...], rounds: int, races: int) -> dict[str, object]:
    tensors = inputs(*shape)
    functions = {"stand_in": stand_in, "loop": loop}
    outputs = {name: function(*tensors) for name, function in functions.items()}
    y_grad = torch.randn_like(outputs["loop"])

    def backward(name: str) -> list[torch.Tensor]:
        return list(torch.autograd.grad(outputs[name], tensors, y_grad, retain_graph=True))

    def forward(name: str) -> torch.Tensor:
        with torch.no_grad():
            return functions[name](*tensors)

    gradients = [backward(name) for name in functions]
    return {
        "shape": dict(zip(("L", "D", "N", "G"), shape, strict=True)),
        "max_relative_difference": {
            "y": difference(*outputs.values()),
            "gradients": max(difference(*pair) for pair in zip(*gradients, strict=True)),
        },
        "forward": race(
            {n: lambda n=n: forward(n) for n in functions}, "stand_in", rounds, 1, races
        ),
        "backward": race(
            {n: lambda n=n: backward(n) for n in functions}, "stand_in", rounds, 1, races
        ),
    }


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(((one - other).abs().max() / other.abs().max()).detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--races", type=int, default=3)
    parser.add_argument("--print", action="store_true", help="print, store no file")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    results = [measure(shape, arguments.rounds, arguments.races) for shape in SHAPES]
    for result in results:
        ratios = {way: result[way]["loop"]["ratio"] for way in ("forward", "backward")}
        times = {way: result[way]["stand_in"]["p50_ms"] for way in ("forward", "backward")}
        print(result["shape"], "ratio", ratios, "ms", times, result["max_relative_difference"])
    if not arguments.print:
        content = {
            "what": "selective_scan_fn, B 1, FP32, 2 threads, against a sequential PyTorch loop",
            "machine": machine.describe(),
            "rounds": arguments.rounds,
            "races": arguments.races,
            "base": "stand_in",
            "results": results,
        }
        write("cpu-compat", content)


if __name__ == "__main__":
    main()
