"""What transposing to the operators' layout costs other people's networks, beside the scan itself.

    python benchmarks/cpu/layout.py

Networks in the layout of mamba-ssm hold u and delta as (B, D, L) and take y so; the operator reads
(B, L, D). Timed on one thread, one node of SelectiveScan without a gate: `operator` on tokens as it
reads them, `with_layout` with the transposes of u, delta, B and C before and of y after it. Their
difference is the most that an operator for channel-major tensors could save, as it would have to
read them no slower.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import onnx
from measure import race, write
from onnx import TensorProto, helper

from dvmsr.export.onnx.bodies import ATTRIBUTES
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN, DOMAIN_VERSION
from dvmsr.runtime.bench import machine

SHAPES = {
    "MambaIR light, 64x64": (4096, 480, 4, 16),
    "VMamba tiny, stage 1 of 224x224": (3136, 768, 4, 1),
}
"""L, D, G and N."""
PARAMETERS = ("A", "D", "delta_bias", "h0")


def model(sizes: tuple[int, int, int, int], channel_major: bool) -> onnx.ModelProto:
    """One scan of these sizes, batch 1; u, delta, y (B, D, L) and B, C (B, G, N, L), or as the
    operator has them."""
    L, D, G, N = sizes
    own = {"u": (1, L, D), "delta": (1, L, D), "B": (1, L, G, N), "C": (1, L, G, N)}
    given = {"u": (1, D, L), "delta": (1, D, L), "B": (1, G, N, L), "C": (1, G, N, L)}
    shapes = {**(given if channel_major else own), "A": (D, N), "D": (D,), "delta_bias": (D,)}
    shapes |= {"h0": (1, D, N)}
    nodes = []
    names = {name: name for name in shapes}
    if channel_major:
        for name in given:
            order = [0, 2, 1] if len(given[name]) == 3 else [0, 3, 1, 2]
            names[name] = f"{name}_tokens"
            nodes.append(helper.make_node("Transpose", [name], [names[name]], perm=order))
    inputs = [names[name] for name in ("u", "delta", "A", "B", "C", "D", "delta_bias", "h0")]
    outputs = ["y_tokens" if channel_major else "y", "h_last"]
    nodes.append(helper.make_node("SelectiveScan", inputs, outputs, domain=DOMAIN, **ATTRIBUTES))
    if channel_major:
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


def feeds(sizes: tuple[int, int, int, int], channel_major: bool) -> dict[str, np.ndarray]:
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
    if channel_major:
        for name in ("u", "delta"):
            values[name] = values[name].transpose(0, 2, 1)
        for name in ("B", "C"):
            values[name] = values[name].transpose(0, 2, 3, 1)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}


def contestant(
    sizes: tuple[int, int, int, int], channel_major: bool, options: onnxruntime.SessionOptions
) -> Callable[[], np.ndarray]:
    data = model(sizes, channel_major).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = feeds(sizes, channel_major)
    return lambda: session.run(["y"], given)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--races", type=int, default=5)
    arguments = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(cpu.library_path()))
    found = {}
    for name, sizes in SHAPES.items():
        contestants = {
            kind: contestant(sizes, kind == "with_layout", options)
            for kind in ("operator", "with_layout")
        }
        y, other = (run() for run in contestants.values())
        np.testing.assert_array_equal(other.transpose(0, 2, 1), y)
        times = race(contestants, "operator", arguments.rounds, 2, arguments.races)
        layout = times["with_layout"]["p50_ms"] - times["operator"]["p50_ms"]
        found[name] = {"L D G N": sizes, "times": times, "layout_ms": layout}
    write(
        "cpu-layout",
        {
            "what": "selective scan without a gate, batch 1, FP32, 1 thread, and its transposes",
            "machine": machine.describe(),
            "rounds": arguments.rounds,
            "races": arguments.races,
            "base": "operator",
            "networks": found,
        },
    )


if __name__ == "__main__":
    main()
