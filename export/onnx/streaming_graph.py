"""The network as an ONNX graph that computes one strip of rows: `dvmsr/streaming.py` once more.

Inputs are `input` (B, 3, rows, W), the flags `top` and `bottom` (int64, one element each, 0 or 1:
whether the strip begins, and ends, the image) and the states of `dvmsr.strips`; outputs are
`output` and each state's next value. Shapes but for the rows stay the same from strip to strip;
the first, unless it is the last too, needs `dvmsr.strips.least_rows`. One strip of all rows with
both flags set is the whole image.
"""

import onnx
from onnx import TensorProto, helper

from dvmsr.config import DVMSRConfig
from dvmsr.export.onnx.graph import NetworkGraph, Weights
from dvmsr.runtime.backends.onnxrt.composed import STRIP_ADD, STRIP_CONV
from dvmsr.strips import BOTTOM, TOP, State, states


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

    def __init__(self, config: DVMSRConfig, weights: Weights, precision: str) -> None:
        super().__init__(config, weights, precision, static_shape=None)
        self.states: dict[str, State] = {state.name: state for state in states(config)}

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

    def make_pixels_shape(self) -> None:
        """(0, -1, W, C): the batch stays, and the rows follow."""
        ends = self.integers("shape/batch_rows", [0, -1])
        rest = self.node("Shape", "shape/width_channels", "conv_after_body.rows", start=2)
        self.node("Concat", self.pixels_shape, ends, rest, axis=0)

    def convolve(self, name: str, x: str, weight: str, bias: str) -> str:
        state = self.states[f"{name}.rows"]
        self.length = f"{name}/tokens"  # of what follows, other than before in the first strip
        inputs = x, weight, bias, state.name, TOP, BOTTOM
        return self.custom_node(STRIP_CONV, name, *inputs, states=[state.next])

    def skip_tokens(self, name: str, deep: str, x: str) -> str:
        rows = self.strip_add(f"{name}/rows", name, deep, self.from_tokens(name, x))
        return self.node("Reshape", f"{name}/to_tokens", rows, self.tokens_shape, output=name)

    def skip_pixels(self, name: str, deep: str, x: str) -> str:
        return self.strip_add(name, name, deep, x)

    def strip_add(self, name: str, place: str, deep: str, x: str) -> str:
        """(B, rows, W, C), of the rows of x those that belong to `deep`, which lags."""
        state = self.states[f"{place}.rows"]
        return self.custom_node(STRIP_ADD, name, deep, x, state.name, TOP, states=[state.next])
