"""The selective scan on one thread: the native kernel against what else there is.

    pip install mambapy
    python benchmarks/cpu/scan.py

L = 16 384, D = 120, N = 16, FP32, batch 1, softplus and gate included everywhere. Contestants: the
native kernel through its PyTorch operator; mamba-ssm's `selective_scan_ref` algorithm (a PyTorch
loop over the tokens); the parallel scan of the package mambapy; the portable ONNX body in ONNX
Runtime.
"""

from __future__ import annotations

import argparse

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from measure import race, write
from onnx import TensorProto, helper

from dvmsr.export.onnx import bodies
from dvmsr.kernels import cpu
from dvmsr.ops import selective_scan
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES, DOMAIN, DOMAIN_VERSION
from dvmsr.runtime.bench import machine

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias", "h0", "z")


def inputs(length: int, channels: int, state: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    tokens, rows = (1, length, channels), (1, length, 1, state)
    return [
        torch.randn(tokens),
        torch.randn(tokens),
        -torch.arange(1.0, state + 1).repeat(channels, 1),
        torch.randn(rows),
        torch.randn(rows),
        torch.randn(channels),
        torch.full((channels,), -4.0),
        torch.zeros(1, channels, state),
        torch.randn(tokens),
    ]


def loop(u, delta, A, B, C, D, delta_bias, h0, z):  # type: ignore[no-untyped-def]
    """All decays and drives at once, then one small PyTorch operation per token and step."""
    B, C = B.squeeze(2), C.squeeze(2)
    step = F.softplus(delta + delta_bias)
    decay = torch.exp(torch.einsum("bld,dn->bldn", step, A))
    drive = torch.einsum("bld,bln,bld->bldn", step, B, u)
    h, outputs = h0, []
    for t in range(u.shape[1]):
        h = decay[:, t] * h + drive[:, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, C[:, t]))
    return (torch.stack(outputs, 1) + D * u) * F.silu(z)


def mambapy_scan(u, delta, A, B, C, D, delta_bias, h0, z):  # type: ignore[no-untyped-def]
    from mambapy.pscan import pscan

    B, C = B.squeeze(2), C.squeeze(2)
    step = F.softplus(delta + delta_bias)
    states = pscan(torch.exp(step.unsqueeze(-1) * A), (step * u).unsqueeze(-1) * B.unsqueeze(2))
    return ((states @ C.unsqueeze(-1)).squeeze(3) + D * u) * F.silu(z)


def portable_session(tensors: list[torch.Tensor]) -> onnxruntime.InferenceSession:
    node = helper.make_node("SelectiveScan", NAMES, ["y", "h_last"], domain=DOMAIN, **ATTRIBUTES)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "scan",
        [info(n, TensorProto.FLOAT, t.shape) for n, t in zip(NAMES, tensors, strict=True)],
        [
            info("y", TensorProto.FLOAT, tensors[0].shape),
            info("h_last", TensorProto.FLOAT, tensors[-2].shape),
        ],
    )
    opsets = [
        helper.make_opsetid("", 18),
        helper.make_opsetid(DOMAIN, DOMAIN_VERSION),
    ]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    bodies.attach(model)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--races", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tensors = inputs(arguments.length, 120, 16)
    session = portable_session(tensors)
    feeds = {n: t.numpy() for n, t in zip(NAMES, tensors, strict=True)}
    contestants = {
        "native": lambda: selective_scan(*tensors)[0].numpy(),
        "torch_loop": lambda: loop(*tensors).numpy(),
        "mambapy": lambda: mambapy_scan(*tensors).numpy(),
        "portable_body": lambda: session.run(["y"], feeds)[0],
    }
    with torch.inference_mode():
        expected = contestants["torch_loop"]()
        errors = {n: float(np.abs(run() - expected).max()) for n, run in contestants.items()}
        times = race(contestants, "native", arguments.rounds, 0, arguments.races)
    write(
        f"cpu-scan-L{arguments.length}-{cpu.isa()}",
        {
            "what": f"selective scan, B 1, L {arguments.length}, D 120, N 16, FP32, 1 thread",
            "machine": machine.describe(),
            "rounds": arguments.rounds,
            "races": arguments.races,
            "max_abs_difference_to_torch_loop": errors,
            "base": "native",
            "times": times,
            "native_ns_per_token_and_channel": {
                "median": times["native"]["p50_ms"] * 1e6 / tensors[0].numel(),
                "least": times["native"]["min_ms"] * 1e6 / tensors[0].numel(),
            },
        },
    )


if __name__ == "__main__":
    main()
