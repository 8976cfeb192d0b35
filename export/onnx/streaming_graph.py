"""The network as an ONNX graph that computes one strip of rows: `dvmsr/streaming.py` once more.

Inputs are `input` (B, 3, rows, W), the flags `top` and `bottom` (int64, one element each, 0 or 1:
whether the strip begins, and ends, the image) and the states of `dvmsr.strips`; outputs are
`output` and each state's next value. Shapes but for the rows stay the same from strip to strip;
the first, unless it is the last too, needs `dvmsr.strips.least_rows`. One strip of all rows with
both flags set is the whole image.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from dvmsr.config import DVMSRConfig
from dvmsr.export.onnx.graph import NetworkGraph, Weights, tensor
from dvmsr.strips import BOTTOM, CACHED_ROWS, TOP, State, states

_END = np.iinfo(np.int64).max


def build_streaming_model(
    config: DVMSRConfig, weights: Weights, precision: str = "fp32", opset: int = 18
) -> onnx.ModelProto:
    """The ONNX model of one step, operator bodies attached, without metadata.

    Args: as of `dvmsr.export.onnx.graph.build_model`.

    Raises:
        IncompatibleModelError: if the network is bidirectional.
    """
    return StreamingGraph(config, weights, precision).model(opset)


class StreamingGraph(NetworkGraph):
    """The graph of one step. Rows between the operators are (B, rows, W, C), as the states are."""

    pads = (0, 1, 0, 1)  # rows above and below come from the states

    def __init__(self, config: DVMSRConfig, weights: Weights, precision: str) -> None:
        super().__init__(config, weights, precision, static_shape=None)
        self.states: dict[str, State] = {state.name: state for state in states(config)}
        self.below: dict[tuple[int, ...], str] = {}
        self.kept: list[tuple[str, str, str, str]] = []
        self.first = self.integers("rows/first", [0])
        self.end = self.integers("rows/end", [_END])
        self.axis = self.integers("rows/axis", [1])
        self.cached = self.integers("rows/cached", [-CACHED_ROWS])

    def inputs(self) -> list[onnx.ValueInfoProto]:
        flags = [helper.make_tensor_value_info(n, TensorProto.INT64, [1]) for n in (TOP, BOTTOM)]
        given = [self.describe(state, state.name) for state in self.states.values()]
        return [*super().inputs(), *flags, *given]

    def outputs(self) -> list[onnx.ValueInfoProto]:
        shape = [self.batch, 3, "output_rows", f"{self.config.scale}*width"]
        image = helper.make_tensor_value_info("output", self.type, shape)
        return [image, *(self.describe(state, state.next) for state in self.states.values())]

    def describe(self, state: State, name: str) -> onnx.ValueInfoProto:
        shape: list[int | str] = [self.batch, *state.sizes]
        if len(state.sizes) == 3:
            shape[2] = "width" if state.sizes[1] == 1 else f"{state.sizes[1]}*width"
        kind = TensorProto.FLOAT if state.always_fp32 else self.type
        return helper.make_tensor_value_info(name, kind, shape)

    def state(self, name: str, sizes: list[int], kind: int) -> tuple[str, str]:
        return name, self.states[name].next

    def network(self) -> str:
        output = super().network()
        # Of the nodes that no other waits for, ONNX Runtime computes the last first. In this order
        # rows are kept as soon as they are there, and the strip that they are of is freed, which
        # takes less than half of the memory.
        for name, x, start, kept in reversed(self.kept):
            self.rows(name, x, start, self.end, output=kept)
        return output

    def make_pixels_shape(self) -> None:
        """(0, -1, W, C): the batch stays, and the rows follow."""
        ends = self.integers("shape/batch_rows", [0, -1])
        rest = self.node("Shape", "shape/width_channels", "conv_after_body.rows", start=2)
        self.node("Concat", self.pixels_shape, ends, rest, axis=0)

    def conv3x3(self, name: str, x: str, key: str, *rest: Any, **more: Any) -> str:
        return super().conv3x3(name, self.with_neighbours(name, x), key, *rest, **more)

    def with_neighbours(self, name: str, rows: str) -> str:
        """The rows that a convolution sees: one row of padding or the last two of the strip before,
        the strip's, and at the bottom a row of padding."""
        state = self.states[f"{name}.rows"]
        above = self.rows(f"{name}/above", state.name, TOP, self.end)
        seen = self.node("Concat", f"{name}/seen", above, rows, self.padding(state), axis=1)
        self.kept.append((f"{name}/next", seen, self.cached, state.next))
        self.length = f"{name}/tokens"  # of what follows, other than before in the first strip
        return seen

    def padding(self, state: State) -> str:
        """A row of zeros like that state's at the bottom, else none."""
        if (key := state.sizes[1:]) not in self.below:
            name = f"padding{len(self.below)}"
            batch = self.node("Shape", f"{name}/batch", state.name, start=0, end=1)
            rest = self.node("Shape", f"{name}/rest", state.name, start=2)
            shape = self.node("Concat", f"{name}/shape", batch, BOTTOM, rest, axis=0)
            zero = tensor([0.0], self.type)
            self.below[key] = self.node("ConstantOfShape", name, shape, value=zero)
        return self.below[key]

    def skip_tokens(self, name: str, deep: str, x: str) -> str:
        rows = self.delayed(name, self.from_tokens(name, x))
        return super().skip_tokens(name, deep, self.to_tokens(f"{name}/due", rows))

    def skip_pixels(self, name: str, deep: str, x: str) -> str:
        return super().skip_pixels(name, deep, self.delayed(name, x))

    def delayed(self, name: str, rows: str) -> str:
        """Rows later by as many as wait: at the top none wait, at the bottom none stay."""
        state = self.states[f"{name}.rows"]
        waiting = state.sizes[0]
        last = self.integers(f"{name}/last", [-waiting])
        before = self.rows(
            f"{name}/before", state.name, self.either(f"{name}/start", TOP, 0, waiting), self.end
        )
        queue = self.node("Concat", f"{name}/queue", before, rows, axis=1)
        self.kept.append((f"{name}/next", queue, last, state.next))
        end = self.either(f"{name}/end", BOTTOM, -waiting, _END)
        return self.rows(f"{name}/due", queue, self.first, end)

    def either(self, name: str, flag: str, no: int, yes: int) -> str:
        """One of two integers."""
        return self.node("Gather", name, self.integers(f"{name}/values", [no, yes]), flag)

    def rows(self, name: str, x: str, start: str, end: str, output: str = "") -> str:
        """x[:, start:end]"""
        return self.node("Slice", name, x, start, end, self.axis, output=output)
