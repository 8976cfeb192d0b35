"""MambaIR as exported, against the same graph with its scans written by hand and against PyTorch.

    python benchmarks/cpu/mambair.py networks:mambair mambair.onnx

The first is the factory of docs/networks.md, the second what `dvmsr-export onnx` made of it. By
hand means: from the activation before each four-directional scan (VMamba's SS2D) to the sum
behind it, as few nodes as we know to write, around one scan of four groups. Two threads, FP32,
batch 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from measure import race, write
from onnx import helper, numpy_helper

from dvmsr import compat, networks
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN
from dvmsr.runtime.bench import machine

_LAYOUT = {"Reshape", "Transpose", "Unsqueeze", "Concat", "Slice", "Split", "Gather", "Add"}


class Rewriter:
    """Replaces each scan's surroundings in a graph that `dvmsr-export onnx` wrote."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in (*self.graph.value_info, *self.graph.input)
        }
        self.sizes = {w.name: tuple(w.dims) for w in self.graph.initializer}

    def run(self) -> int:
        """How many scans were replaced."""
        for name, value in (("last", -1), ("before_first", np.iinfo(np.int64).min), ("axis", 3)):
            self._constant(f"hand/{name}", [value])
        scans = [n for n in self.graph.node if (n.domain, n.op_type) == (DOMAIN, "SelectiveScan")]
        for index, scan in enumerate(scans):
            self._replace(scan, f"hand{index}")
        self._prune()
        return len(scans)

    def _replace(self, scan: onnx.NodeProto, at: str) -> None:
        x = self._image(scan.input[0])
        end = self._sum(scan.output[0])
        to_delta = self._behind(scan.input[1], "MatMul")
        split = self._behind(to_delta.input[1], "Split")
        projection = self._behind(split.input[0], "MatMul")
        groups, _, channels = self.sizes[projection.input[0]]
        self._constant(f"{at}/to_tokens", [0, 1, channels, -1])
        self._constant(f"{at}/to_channels", [0, groups * channels, -1])
        self._constant(f"{at}/to_groups", [0, groups, channels, -1])
        nodes: list[onnx.NodeProto] = []
        flip = ["hand/last", "hand/before_first", "hand/axis", "hand/last"]

        def name(part: str) -> str:
            return f"{at}/{part}"

        def node(op: str, inputs: list[str], *outputs: str, **attributes: object) -> str:
            made = helper.make_node(op, inputs, outputs, name(f"{op}{len(nodes)}"), **attributes)
            nodes.append(made)
            return outputs[0]

        rows = node("Reshape", [x, name("to_tokens")], name("rows"))
        turned = node("Transpose", [x], name("turned"), perm=[0, 1, 3, 2])
        columns = node("Reshape", [turned, name("to_tokens")], name("columns"))
        both = node("Concat", [rows, columns], name("both"), axis=1)
        back = node("Slice", [both, *flip], name("back"))
        four = node("Concat", [both, back], name("four"), axis=1)
        dbc = node("MatMul", [projection.input[0], four], name("dbc"))
        parts = [name("rank"), name("B"), name("C")]
        node("Split", [dbc, split.input[1]], *parts, axis=2)
        wide = node("MatMul", [to_delta.input[0], parts[0]], name("delta_groups"))
        delta = node("Reshape", [wide, name("to_channels")], name("delta"))
        u = node("Reshape", [four, name("to_channels")], name("u"))
        again = onnx.NodeProto.FromString(scan.SerializeToString())
        again.input[0], again.input[1], again.input[3], again.input[4] = u, delta, *parts[1:]
        again.output[0], again.output[1], again.name = name("y"), name("h"), name("scan")
        nodes.append(again)
        y = node("Reshape", [again.output[0], name("to_groups")], name("y_groups"))
        ahead, behind = name("ahead"), name("behind")
        node("Split", [y], ahead, behind, axis=1, num_outputs=2)
        forth = node("Slice", [behind, *flip], name("forth"))
        summed = node("Add", [ahead, forth], name("summed"))
        by_row, by_column = name("by_row"), name("by_column")
        node("Split", [summed], by_row, by_column, axis=1, num_outputs=2)
        shape = node("Shape", [turned], name("turned_shape"))
        image = node("Reshape", [by_column, shape], name("column_image"))
        upright = node("Transpose", [image], name("upright"), perm=[0, 1, 3, 2])
        size = node("Shape", [x], name("shape"))
        row_image = node("Reshape", [by_row, size], name("row_image"))
        total = node("Add", [row_image, upright], name("total"))
        tokens = node("Transpose", [total], name("result"), perm=[0, 2, 3, 1])
        for user in self.graph.node:
            for port, given in enumerate(user.input):
                if given == end:
                    user.input[port] = tokens
        position = list(self.graph.node).index(scan)
        for made in reversed(nodes):
            self.graph.node.insert(position, made)

    def _constant(self, name: str, value: list[int]) -> None:
        self.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))

    def _image(self, name: str) -> str:
        """What the four directions are made of, (B, C, H, W)."""
        while True:
            node = self.makers[name]
            if node.op_type not in _LAYOUT:
                return name
            name = node.input[0]

    def _behind(self, name: str, op: str) -> onnx.NodeProto:
        node = self.makers[name]
        while node.op_type != op:
            node = self.makers[node.input[0]]
        return node

    def _sum(self, name: str) -> str:
        """What the norm behind the scan takes, (B, H, W, C)."""
        names = {name}
        for user in self.graph.node:
            if names & set(user.input):
                if user.op_type == "LayerNormalization":
                    return str(user.input[0])
                names |= set(user.output)
        raise SystemExit(f"no norm behind {name}: this is no MambaIR")

    def _prune(self) -> None:
        needed = {value.name for value in self.graph.output}
        kept = []
        for node in reversed(self.graph.node):
            if needed & set(node.output):
                kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
                needed |= set(node.input)
        weights = [w for w in self.graph.initializer if w.name in needed]
        weights = [onnx.TensorProto.FromString(w.SerializeToString()) for w in weights]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(reversed(kept))
        self.graph.initializer.extend(weights)


def session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(cpu.library_path()))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs(found: object) -> Iterator[np.ndarray]:
    for one in found if isinstance(found, (list, tuple)) else [found]:
        yield one.numpy() if isinstance(one, torch.Tensor) else one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("factory")
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", type=int, nargs="+", default=[64], help="sides of the picture")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--races", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--print", action="store_true", help="print, store no file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    exported = onnx.load(arguments.file)
    by_hand = onnx.ModelProto.FromString(exported.SerializeToString())
    scans = Rewriter(by_hand).run()
    sessions = {
        "exported": session(exported.SerializeToString(), arguments.threads),
        "by_hand": session(by_hand.SerializeToString(), arguments.threads),
    }
    with compat.importing():
        module = networks.load(arguments.factory)
    results = []
    for side in arguments.size:
        x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        feeds = {sessions["exported"].get_inputs()[0].name: x.numpy()}

        def in_pytorch(x: torch.Tensor = x) -> torch.Tensor:
            with torch.inference_mode():
                return module(x)

        runs = {
            name: (lambda s=s, feeds=feeds: s.run(None, feeds)) for name, s in sessions.items()
        } | {"pytorch": in_pytorch}
        (truth,) = outputs(in_pytorch())
        apart = {
            name: float(max(np.abs(y - truth).max() for y in outputs(run())) / np.abs(truth).max())
            for name, run in runs.items()
        }
        found = race(runs, "by_hand", arguments.rounds, 2, arguments.races)
        results.append({"side": side, "max_relative_difference": apart, "times": found})
        ratios = {name: (entry["ratio"], entry["p50_ms"]) for name, entry in found.items()}
        print(side, ratios, apart)
    if not arguments.print:
        nodes = {"exported": len(exported.graph.node), "by_hand": len(by_hand.graph.node)}
        content = {
            "what": "MambaIR light x2, 24 blocks, B 1, FP32, against its scans written by hand",
            "machine": machine.describe(),
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "races": arguments.races,
            "base": "by_hand",
            "scans": scans,
            "nodes": nodes,
            "results": results,
        }
        write("cpu-mambair", content)


if __name__ == "__main__":
    main()
