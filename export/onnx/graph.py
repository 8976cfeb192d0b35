"""The network as an ONNX graph, node by node: `dvmsr/model.py` once more, in its order.

Writing the graph instead of tracing it keeps its layout in our hands: a ViMM is one MambaMixer
whose weights are split where PyTorch splits values, and tokens (B, L, C) are pixels (B, H, W, C) to
the Conv3x3, so that transposes stand at the borders alone; channels that are spread to enlarged
pixels are in an order that lets these move as rows. A node is named by its place, as in
`rssb0/vimm1`, and so is its output.

Symbols as in the model: C channels, D inner channels, N state size, R rank of delta, K taps,
L = H * W tokens, s scale.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dvmsr.config import UPSAMPLER_CHANNELS, DVMSRConfig
from dvmsr.export.onnx import bodies
from dvmsr.runtime.backends.onnxrt.composed import COMPOSED, CONV, MIXER
from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES, DOMAIN, DOMAIN_VERSION

Weights = Mapping[str, NDArray[Any]]
"""Parameters and buffers of `dvmsr.model.DVMSR` under their names there, FP32."""

TYPES = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}
"""The precisions of a graph; ONNX Runtime's CPU kernels do not compute in the last."""
OPSETS = range(17, 25)
"""17 brought LayerNormalization; onnxruntime 1.20 reads up to 21, 1.24 up to 24."""
LAYER_NORM_EPSILON = 1e-5
IR_VERSION = 8
"""The first with model-local functions."""


def build_model(
    config: DVMSRConfig,
    weights: Weights,
    precision: str = "fp32",
    opset: int = 18,
    static_shape: tuple[int, int, int] | None = None,
) -> onnx.ModelProto:
    """The ONNX model of a network, operator bodies attached, without metadata.

    Args:
        precision: of input, output, activations and weights, one of `TYPES`; the statistics of
            LayerNorm, and A, D, the bias of delta, the causal convolution's weights and the state
            are FP32. ONNX defines bf16 from opset 22 on.
        opset: of the standard operators, one of `OPSETS`.
        static_shape: batch, height and width; dynamic by default.
    """
    return NetworkGraph(config, weights, precision, static_shape).model(opset)


class GraphBuilder:
    """Collects nodes and initializers; a value is handled by its name."""

    def __init__(self, precision: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.value_infos: list[onnx.ValueInfoProto] = []
        self.type = TYPES[precision]

    def node(self, op: str, name: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A standard operator; returns its output, named like the node unless given."""
        output = output or name
        self.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def custom_node(
        self,
        op: str,
        name: str,
        *inputs: str,
        states: Sequence[str] = (),
        **attributes: Any,
    ) -> str:
        """One of our operators; returns its first output. The others are its states after the last
        token, under those names."""
        outputs = [name, *states]
        self.nodes.append(
            helper.make_node(op, inputs, outputs, name, domain=DOMAIN, **attributes, **ATTRIBUTES)
        )
        return name

    def tell(self, name: str, shape: Sequence[int | str]) -> str:
        """State the shape of a value in the activations' type; returns its name."""
        self.value_infos.append(helper.make_tensor_value_info(name, self.type, shape))
        return name

    def weight(self, name: str, array: Any) -> str:
        """A constant in the type of the activations."""
        return self.constant(name, array, self.type)

    def parameter(self, name: str, array: Any) -> str:
        """A constant that is FP32 in every precision."""
        return self.constant(name, array, TensorProto.FLOAT)

    def integers(self, name: str, values: Sequence[int]) -> str:
        return self.constant(name, values, TensorProto.INT64)

    def constant(self, name: str, array: Any, kind: int) -> str:
        self.initializers.append(tensor(array, kind, name))
        return name


def tensor(array: Any, kind: int, name: str = "") -> onnx.TensorProto:
    """Values in a type of `TensorProto`, rounded to the nearest."""
    if kind != TensorProto.BFLOAT16:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        with np.errstate(over="ignore"):  # what infinity makes of the output shows when it is run
            return numpy_helper.from_array(np.ascontiguousarray(array, dtype), name)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # to the nearest, ties to even
    return helper.make_tensor(name, kind, bits.shape, upper.astype("<u2").tobytes(), raw=True)


class NetworkGraph(GraphBuilder):
    """The graph of one network; methods are the modules of `dvmsr/model.py`.

    `name` is the place of a node in the graph, `key` that of its weights in the model.
    """

    def __init__(
        self,
        config: DVMSRConfig,
        weights: Weights,
        precision: str,
        static_shape: tuple[int, int, int] | None,
    ) -> None:
        super().__init__(precision)
        self.config, self.w, self.static_shape = config, weights, static_shape
        self.image_shape: tuple[int | str, ...] = static_shape or ("batch", "height", "width")
        self.batch = self.image_shape[0]
        self.length = static_shape[1] * static_shape[2] if static_shape else "tokens"
        self.tokens_shape = self.integers("shape/tokens", [0, -1, config.channels])
        self.pixels_shape = "shape/pixels"
        self.width = ""  # of the input, once it is known
        self.zeros_made: set[str] = set()

    def state(self, name: str, sizes: list[int], kind: int) -> tuple[str, str]:
        """An operator's state (B, *sizes): before the first token, and its name after the last."""
        return self.zeros(f"zeros/{name.rpartition('.')[2]}", sizes, kind), f"{name}.next"

    def zeros(self, name: str, sizes: list[int], kind: int) -> str:
        """(B, *sizes)"""
        if name in self.zeros_made:
            return name
        self.zeros_made.add(name)
        if isinstance(self.batch, int):
            return self.constant(name, np.zeros([self.batch, *sizes]), kind)
        batch = self.node("Shape", f"{name}_batch", "input", start=0, end=1)
        rest = self.integers(f"{name}_sizes", sizes)
        shape = self.node("Concat", f"{name}_shape", batch, rest, axis=0)
        return self.node("ConstantOfShape", name, shape, value=tensor([0.0], kind))

    def model(self, opset: int) -> onnx.ModelProto:
        """The network's graph with the operators' bodies."""
        self.network()
        graph = helper.make_graph(
            self.nodes,
            "DVMSR",
            self.inputs(),
            self.outputs(),
            self.initializers,
            value_info=self.value_infos,
        )
        model: onnx.ModelProto = helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid("", opset),
                helper.make_opsetid(DOMAIN, DOMAIN_VERSION),
            ],
            ir_version=IR_VERSION,
        )
        bodies.attach(model)
        return model

    def inputs(self) -> list[onnx.ValueInfoProto]:
        batch, height, width = self.image_shape
        return [helper.make_tensor_value_info("input", self.type, [batch, 3, height, width])]

    def outputs(self) -> list[onnx.ValueInfoProto]:
        (batch, height, width), s = self.image_shape, self.config.scale
        up = [s * n if isinstance(n, int) else f"{s}*{n}" for n in (height, width)]
        return [helper.make_tensor_value_info("output", self.type, [batch, 3, *up])]

    def network(self) -> str:
        """`input` (B, 3, H, W) -> `output` (B, 3, s*H, s*W)"""
        mean = self.weight("mean", self.w["mean"])
        centred = self.node("Sub", "subtract_mean", "input", mean)
        pixels = self.to_pixels("input", centred)  # (B, H, W, 3)
        shallow = self.conv3x3("conv_first", pixels, "conv_first")  # (B, H, W, C)
        self.make_pixels_shape()
        x = self.to_tokens("patch_embed", shallow)  # (B, L, C)
        x = self.layer_norm("patch_embed/norm", x, "patch_embed.norm")
        for i, depth in enumerate(self.config.depths):
            x = self.rssb(f"rssb{i}", x, f"layers.{i}", depth)
        x = self.layer_norm("norm_f", x, "norm_f")
        deep = self.conv3x3_of_tokens("conv_after_body", x, "conv_after_body")
        return self.upsampler(self.skip_pixels("skip", deep, shallow))

    def make_pixels_shape(self) -> None:
        """(0, H, W, C): the batch stays."""
        channels = self.config.channels
        if self.static_shape:
            self.integers(self.pixels_shape, [*self.static_shape, channels])
            return
        size = self.node("Shape", "shape/height_width", "input", start=2)
        batch = self.integers("shape/batch", [0])
        last = self.integers("shape/channels", [channels])
        self.node("Concat", self.pixels_shape, batch, size, last, axis=0)

    def rssb(self, name: str, x: str, key: str, depth: int) -> str:
        """(B, L, C) -> (B, L, C)"""
        deep = x
        for j in range(depth):
            deep = self.vimm(f"{name}/vimm{j}", deep, f"{key}.residual_group.blocks.{j}")
        deep = self.conv3x3_of_tokens(f"{name}/conv", deep, f"{key}.conv")
        return self.skip_tokens(f"{name}/skip", deep, x)

    def skip_tokens(self, name: str, deep: str, x: str) -> str:
        """(B, H, W, C) and (B, L, C) -> (B, L, C)"""
        return self.node("Add", name, self.to_tokens(name, deep), x)

    def skip_pixels(self, name: str, deep: str, x: str) -> str:
        """(B, H, W, C) twice -> (B, H, W, C)"""
        return self.node("Add", name, deep, x)

    def vimm(self, name: str, x: str, key: str) -> str:
        """(B, L, C) -> (B, L, C)

        The last projection of the sum of both directions is the sum of theirs, and norm and first
        projections work token by token: only tokens of C channels are reversed.
        """
        shared = self.shared_weights(name, key)
        y = self.mixer(name, x, f"{key}.mixer", "", shared)
        if self.config.bidirectional:
            back = f"{name}/backward"
            x_b = self.flip(f"{back}/flip_x", x)  # (B, L, C), last token first
            y_b = self.mixer(back, x_b, f"{key}.mixer", "_b", shared)
            y = self.node("Add", f"{name}/both", y, self.flip(f"{back}/flip_y", y_b))
        return self.node("Add", f"{name}/residual", x, y) if self.config.vimm_residual else y

    def shared_weights(self, name: str, key: str) -> dict[str, str]:
        """What the mixers of both directions take, by argument."""
        W_x, W_z = np.split(self.w[f"{key}.mixer.in_proj.weight"], 2)  # (D, C) each
        weights = {
            "in_proj_x": self.linear(f"{name}/in_proj_x", W_x),
            "in_proj_z": self.linear(f"{name}/in_proj_z", W_z),
            "out_proj": self.linear(f"{name}/out_proj", self.w[f"{key}.mixer.out_proj.weight"]),
        }
        norm = self.norm_weights(f"{name}/norm", f"{key}.norm")
        return weights | dict(zip(("norm_weight", "norm_bias"), norm, strict=True))

    def mixer(self, name: str, x: str, key: str, direction: str, shared: Mapping[str, str]) -> str:
        """(B, L, C) -> (B, L, C), with the LayerNorm before it; direction is "" or "_b"."""
        R, N, K = self.config.dt_rank, self.config.state, self.config.conv_width
        C, D = self.config.channels, self.config.inner_channels
        conv1d, dt_proj = f"{key}.conv1d{direction}", f"{key}.dt_proj{direction}"
        taps = self.w[f"{conv1d}.weight"].squeeze(1)  # (D, K)
        W_dt, W_B, W_C = np.split(self.w[f"{key}.x_proj{direction}.weight"], [R, R + N])
        tail, next_tail = self.state(f"{name}/conv1d.tail", [K - 1, D], self.type)
        h0, h_last = self.state(f"{name}/scan.h", [D, N], TensorProto.FLOAT)
        A = -np.exp(self.w[f"{key}.A{direction}_log"])  # (D, N)
        own = {
            "x": x,
            "conv1d_weight": self.parameter(f"{name}/conv1d.weight", taps),
            "conv1d_bias": self.parameter(f"{name}/conv1d.bias", self.w[f"{conv1d}.bias"]),
            "x_proj_dt": self.linear(f"{name}/x_proj_dt", W_dt),
            "x_proj_B": self.linear(f"{name}/x_proj_B", W_B),
            "x_proj_C": self.linear(f"{name}/x_proj_C", W_C),
            "dt_proj": self.linear(f"{name}/dt_proj", self.w[f"{dt_proj}.weight"]),
            "A": self.parameter(f"{name}/scan.A", A),
            "D": self.parameter(f"{name}/scan.D", self.w[f"{key}.D{direction}"]),
            "delta_bias": self.parameter(f"{name}/scan.delta_bias", self.w[f"{dt_proj}.bias"]),
            "tail": tail,
            "h0": h0,
        }
        inputs = {**own, **shared}
        y = self.custom_node(
            MIXER,
            name,
            *(inputs[argument] for argument in COMPOSED[MIXER].arguments),
            states=(next_tail, h_last),
            epsilon=LAYER_NORM_EPSILON,
        )
        return self.tell(y, (self.batch, self.length, C))

    def upsampler(self, x: str) -> str:
        """(B, H, W, C) -> `output` (B, 3, s*H, s*W)

        The last convolution adds the image mean with its bias.
        """
        mean, s = self.w["mean"].reshape(3), self.config.scale
        if self.config.upsampler == "pixelshuffledirect":
            bias = mean.repeat(s * s)
            x = self.conv3x3("upsample/conv", x, "upsample.0", more_bias=bias, enlarged=s)
            x = self.pixel_shuffle("upsample/shuffle", x, s, s, 3)
            return self.from_pixels("output", x, output="output")
        x = self.conv3x3("conv_before_upsample/conv", x, "conv_before_upsample.0")
        x = self.node("LeakyRelu", "conv_before_upsample/act", x, alpha=0.01)
        times = 1
        for i, factor in enumerate([2, 2] if s == 4 else [s]):
            times *= factor
            x = self.conv3x3(f"upsample/conv{i}", x, f"upsample.{2 * i}", enlarged=factor)
            x = self.pixel_shuffle(f"upsample/shuffle{i}", x, factor, times, UPSAMPLER_CHANNELS)
        x = self.conv3x3("conv_last", x, "conv_last", more_bias=mean)
        return self.from_pixels("output", x, output="output")

    def to_pixels(self, name: str, image: str) -> str:
        """(B, C, H, W) -> (B, H, W, C)"""
        return self.node("Transpose", f"{name}/to_pixels", image, perm=[0, 2, 3, 1])

    def to_tokens(self, name: str, pixels: str) -> str:
        """(B, H, W, C) -> (B, L, C)"""
        return self.node("Reshape", f"{name}/to_tokens", pixels, self.tokens_shape)

    def from_tokens(self, name: str, tokens: str) -> str:
        """(B, L, C) -> (B, H, W, C)"""
        return self.node("Reshape", f"{name}/from_tokens", tokens, self.pixels_shape)

    def from_pixels(self, name: str, pixels: str, output: str = "") -> str:
        """(B, H, W, C) -> (B, C, H, W)"""
        place = f"{name}/from_pixels"
        return self.node("Transpose", place, pixels, output=output, perm=[0, 3, 1, 2])

    def flip(self, name: str, tokens: str) -> str:
        """Reverse the order of the tokens."""
        bounds = {"start": -1, "end": np.iinfo(np.int64).min, "axis": 1, "step": -1}
        inputs = [self.integers(f"{name}.{key}", [value]) for key, value in bounds.items()]
        return self.node("Slice", name, tokens, *inputs)

    def conv3x3_of_tokens(self, name: str, tokens: str, key: str) -> str:
        """(B, L, C) -> (B, H, W, C)"""
        return self.conv3x3(name, self.from_tokens(name, tokens), key)

    def conv3x3(
        self,
        name: str,
        x: str,
        key: str,
        more_bias: NDArray[Any] | float = 0.0,
        enlarged: int = 1,
    ) -> str:
        """(B, H, W, C_in) -> (B, H, W, C_out); where pixels are enlarged after it, enlarged pixel
        by enlarged pixel."""
        weight = by_enlarged_pixel(self.w[f"{key}.weight"], enlarged)
        bias = by_enlarged_pixel(self.w[f"{key}.bias"] + more_bias, enlarged)
        inputs = self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias)
        return self.convolve(name, x, *inputs)

    def convolve(self, name: str, x: str, weight: str, bias: str) -> str:
        return self.custom_node(CONV, name, x, weight, bias, pads=[1, 1, 1, 1])

    def linear(self, name: str, weight: NDArray[Any]) -> str:
        """The (in, out) of a PyTorch weight (out, in)."""
        return self.weight(f"{name}.weight", weight.T)

    def norm_weights(self, name: str, key: str) -> tuple[str, str]:
        """Scale and bias, (C)."""
        return (
            self.weight(f"{name}.weight", self.w[f"{key}.weight"]),
            self.weight(f"{name}.bias", self.w[f"{key}.bias"]),
        )

    def layer_norm(self, name: str, x: str, key: str) -> str:
        """(B, L, C) -> (B, L, C); stash_type 1 means FP32 statistics in every precision."""
        weights = self.norm_weights(name, key)
        return self.node(
            *("LayerNormalization", name, x, *weights),
            axis=-1,
            epsilon=LAYER_NORM_EPSILON,
            stash_type=1,
        )

    def pixel_shuffle(self, name: str, x: str, factor: int, times: int, channels: int) -> str:
        """(B, H, W, f*f*C), enlarged pixel by enlarged pixel, -> (B, f*H, f*W, C), which is `times`
        the size of the input."""
        split = self.integers(f"{name}.blocks", [0, 0, 0, factor, factor * channels])
        x = self.node("Reshape", f"{name}/blocks", x, split)
        x = self.node("Transpose", f"{name}/rows", x, perm=[0, 1, 3, 2, 4])  # (B, H, f, W, f*C)
        return self.node("Reshape", name, x, self.enlarged_shape(f"{name}.shape", times, channels))

    def enlarged_shape(self, name: str, times: int, channels: int) -> str:
        """(0, -1, times*W, C): the batch stays, and the rows follow."""
        if self.static_shape:
            batch, height, width = self.static_shape
            return self.integers(name, [batch, times * height, times * width, channels])
        if not self.width:
            third = self.integers("shape/third", [2])
            self.width = self.node("Gather", "shape/width", self.pixels_shape, third)
        factor = self.integers(f"{name}.times", [times])
        enlarged = self.node("Mul", f"{name}/width", self.width, factor)
        first = self.integers(f"{name}.first", [0, -1])
        last = self.integers(f"{name}.last", [channels])
        return self.node("Concat", name, first, enlarged, last, axis=0)


def by_enlarged_pixel(array: NDArray[Any], factor: int) -> NDArray[Any]:
    """What makes C*f*f channels for `torch.nn.PixelShuffle`, in the order f, f, C."""
    blocks = array.reshape(-1, factor**2, *array.shape[1:])
    return np.ascontiguousarray(blocks.swapaxes(0, 1)).reshape(array.shape)
