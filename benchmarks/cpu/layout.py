"""What transposes beside the scan cost other people's networks, and a scan that needs none.

    python benchmarks/cpu/layout.py

Networks in the layout of mamba-ssm hold u and delta as (B, D, L), B and C as (B, G, N, L), and take
y as (B, D, L). Timed is one node of SelectiveScan without a gate: `with_layout` with the transposes
of u, delta, B and C before and of y after it, `channel_major` on the tensors as they are, and
`operator` on token-major ones, which would need no transposes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import onnx
from measure import race, write
from onnx import TensorProto, helper

from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES, DOMAIN, DOMAIN_VERSION
from dvmsr.runtime.bench import machine

KINDS = ("operator", "with_layout", "channel_major")
SHAPES = {
    "MambaIR light, 64x64": (4096, 480, 4, 16),
    "VMamba tiny, stage 1 of 224x224": (3136, 768, 4, 1),
}
"""L, D, G and N."""
PARAMETERS = ("A", "D", "delta_bias", "h0")


def model(sizes: tuple[int, int, int, int], kind: str) -> onnx.ModelProto:
    """One scan of these sizes, batch 1; u, delta, y (B, D, L) and B, C (B, G, N, L), but for
    `operator`."""
    L, D, G, N = sizes
    own = {"u": (1, L, D), "delta": (1, L, D), "B": (1, L, G, N), "C": (1, L, G, N)}
    given = {"u": (1, D, L), "delta": (1, D, L), "B": (1, G, N, L), "C": (1, G, N, L)}
    shapes = {**(own if kind == "operator" else given), "A": (D, N), "D": (D,), "delta_bias": (D,)}
    shapes |= {"h0": (1, D, N)}
    nodes = []
    names = {name: name for name in shapes}
    if kind == "with_layout":
        for name in given:
            order = [0, 2, 1] if len(given[name]) == 3 else [0, 3, 1, 2]
            names[name] = f"{name}_tokens"
            nodes.append(helper.make_node("Transpose", [name], [names[name]], perm=order))
    inputs = [names[name] for name in ("u", "delta", "A", "B", "C", "D", "delta_bias", "h0")]
    outputs = ["y_tokens" if kind == "with_layout" else "y", "h_last"]
    form = {**ATTRIBUTES, "channel_major": int(kind == "channel_major")}
    nodes.append(helper.make_node("SelectiveScan", inputs, outputs, domain=DOMAIN, **form))
    if kind == "with_layout":
        nodes.append(helper.make_node("Transpose", ["y_tokens"], ["y"], perm=[0, 2, 1]))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "layout",
        [info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [
            info("y", TensorProto.FLOAT, shapes["u"]),
            info("h_last", TensorProto.FLOAT, shapes["h0"]),
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def feeds(sizes: tuple[int, int, int, int], kind: str) -> dict[str, np.ndarray]:
    """The same values in either layout."""
    L, D, G, N = sizes
    rng = np.random.default_rng(0)
    values = {
        "u": rng.standard_normal((1, L, D)),
        "delta": rng.standard_normal((1, L, D)),
        "A": -np.tile(np.arange(1.0, N + 1), (D, 1)),
        "B": rng.standard_normal((1, L, G, N)),
        "C": rng.standard_normal((1, L, G, N)),
        "D": rng.standard_normal(D),
        "delta_bias": np.full(D, -4.0),
        "h0": np.zeros((1, D, N)),
    }
    if kind != "operator":
        for name in ("u", "delta"):
            values[name] = values[name].transpose(0, 2, 1)
        for name in ("B", "C"):
            values[name] = values[name].transpose(0, 2, 3, 1)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}


def contestant(
    sizes: tuple[int, int, int, int], kind: str, options: onnxruntime.SessionOptions
) -> Callable[[], np.ndarray]:
    data = model(sizes, kind).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = feeds(sizes, kind)
    return lambda: session.run(["y"], given)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--races", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.register_custom_ops_library(str(cpu.library_path()))
    found = {}
    for name, sizes in SHAPES.items():
        contestants = {kind: contestant(sizes, kind, options) for kind in KINDS}
        y, *others = (run() for run in contestants.values())
        for other in others:
            np.testing.assert_array_equal(other.transpose(0, 2, 1), y)
        times = race(contestants, "with_layout", arguments.rounds, 2, arguments.races)
        found[name] = {"L D G N": sizes, "times": times}
    write(
        "cpu-layout",
        {
            "what": "selective scan without a gate, batch 1, FP32: token-major, with transposes "
            "beside it, and channel-major",
            "threads": arguments.threads,
            "machine": machine.describe(),
            "rounds": arguments.rounds,
            "races": arguments.races,
            "base": "with_layout",
            "networks": found,
        },
    )


if __name__ == "__main__":
    main()
