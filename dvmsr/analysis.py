"""What a network costs: parameters, operations and activations per layer; needs no torch.

Two counts of operations, both taking a fused multiply-add as one:

* `flops`: every multiply-add, addition, product, division, exponential and logarithm of a forward
  pass. Biases are what a sum starts from, and cost nothing.
* `ntire_flops`: what the NTIRE 2024 efficient super-resolution challenge reported (fvcore on the
  official code): the 3x3 convolutions, `in_proj`, and 5 per element of a LayerNorm. The rest of a
  Mamba mixer is one fused operator there, and was left out.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from dvmsr.config import UPSAMPLER_CHANNELS, DVMSRConfig

NORM = 5  # per element: mean, variance, normalise, weight, bias
SILU = 3  # exponential, addition, division
SOFTPLUS = 2  # exponential, logarithm of 1 + x


@dataclass(frozen=True)
class Layer:
    """One row of the table."""

    name: str
    """Path of the module in the network."""
    kind: str
    """`conv2d`, `linear`, `conv1d`, `scan`, `norm` or `elementwise`."""
    output: tuple[int, ...]
    """Shape of the result without the batch: (channels, h, w), or (tokens, channels)."""
    parameters: int
    flops: int
    ntire_flops: int = 0

    @property
    def activations(self) -> int:
        """Elements that a 3x3 convolution writes; 0 for others (the challenge's convention)."""
        return prod(self.output) if self.kind == "conv2d" else 0


@dataclass(frozen=True)
class Analysis:
    """Costs of one forward pass over an image of height x width pixels."""

    config: DVMSRConfig
    height: int
    width: int
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops(self) -> int:
        return sum(layer.flops for layer in self.layers)

    @property
    def ntire_flops(self) -> int:
        return sum(layer.ntire_flops for layer in self.layers)

    @property
    def activations(self) -> int:
        return sum(layer.activations for layer in self.layers)

    def flops_by_kind(self) -> dict[str, int]:
        """`flops` of each kind of layer, the most expensive first."""
        totals: dict[str, int] = {}
        for layer in self.layers:
            totals[layer.kind] = totals.get(layer.kind, 0) + layer.flops
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values."""
        return {
            "config": self.config.to_dict(),
            "height": self.height,
            "width": self.width,
            "parameters": self.parameters,
            "flops": self.flops,
            "ntire_flops": self.ntire_flops,
            "activations": self.activations,
            "flops_by_kind": self.flops_by_kind(),
            "layers": [{**asdict(la), "activations": la.activations} for la in self.layers],
        }


def describe(config: DVMSRConfig, height: int = 256, width: int = 256) -> Analysis:
    """Costs of the network on an image of height x width pixels (batch 1)."""
    return Analysis(config, height, width, tuple(_network(config, height, width)))


def _network(config: DVMSRConfig, h: int, w: int) -> Iterator[Layer]:
    C, s, L = config.channels, config.scale, h * w
    yield _elementwise("input - mean", (3, h, w))
    yield _conv3x3("conv_first", 3, C, h, w)
    yield _norm("patch_embed.norm", C, L)
    for i, depth in enumerate(config.depths):
        for j in range(depth):
            vimm = f"layers.{i}.residual_group.blocks.{j}"
            yield _norm(f"{vimm}.norm", C, L)
            yield from _mixer(f"{vimm}.mixer", config, L)
            if config.vimm_residual:
                yield _elementwise(f"{vimm} + input", (L, C))
        yield _conv3x3(f"layers.{i}.conv", C, C, h, w)
        yield _elementwise(f"layers.{i} + input", (L, C))
    yield _norm("norm_f", C, L)
    yield _conv3x3("conv_after_body", C, C, h, w)
    yield _elementwise("conv_after_body + conv_first", (C, h, w))
    yield from _upsampler(config, h, w)
    yield _elementwise("output + mean", (3, s * h, s * w))


def _mixer(name: str, config: DVMSRConfig, L: int) -> Iterator[Layer]:
    C, D, N = config.channels, config.inner_channels, config.state
    R, K = config.dt_rank, config.conv_width
    # Per token and channel: delta + bias, softplus, delta * u; per state delta * A, its
    # exponential, delta * u * B, the recurrence, the product with C; then D * u and SiLU(z).
    scan = 1 + SOFTPLUS + 1 + 5 * N + 1 + SILU + 1
    in_proj = L * C * 2 * D
    yield Layer(f"{name}.in_proj", "linear", (L, 2 * D), C * 2 * D, in_proj, in_proj)
    for suffix in ("", "_b")[: 1 + config.bidirectional]:
        yield Layer(f"{name}.conv1d{suffix}", "conv1d", (L, D), D * (K + 1), L * D * (K + SILU))
        x_proj = D * (R + 2 * N)
        yield Layer(f"{name}.x_proj{suffix}", "linear", (L, R + 2 * N), x_proj, L * x_proj)
        yield Layer(f"{name}.dt_proj{suffix}", "linear", (L, D), (R + 1) * D, L * R * D)
        yield Layer(f"{name}.scan{suffix}", "scan", (L, D), D * (N + 1), L * D * scan)
    if config.bidirectional:
        yield _elementwise(f"{name}.scan + scan_b", (L, D))
    yield Layer(f"{name}.out_proj", "linear", (L, C), D * C, L * D * C)


def _upsampler(config: DVMSRConfig, h: int, w: int) -> Iterator[Layer]:
    C, s = config.channels, config.scale
    if config.upsampler == "pixelshuffledirect":
        yield _conv3x3("upsample.0", C, 3 * s * s, h, w)
        return
    U = UPSAMPLER_CHANNELS
    yield _conv3x3("conv_before_upsample.0", C, U, h, w)
    yield _elementwise("conv_before_upsample.1", (U, h, w))
    for i, factor in enumerate((2, 2) if s == 4 else (s,)):
        yield _conv3x3(f"upsample.{2 * i}", U, U * factor**2, h, w)
        h, w = h * factor, w * factor
    yield _conv3x3("conv_last", U, 3, h, w)


def _conv3x3(name: str, in_channels: int, out_channels: int, h: int, w: int) -> Layer:
    weights = 9 * in_channels * out_channels
    flops = weights * h * w
    return Layer(name, "conv2d", (out_channels, h, w), weights + out_channels, flops, flops)


def _norm(name: str, C: int, L: int) -> Layer:
    return Layer(name, "norm", (L, C), 2 * C, NORM * L * C, NORM * L * C)


def _elementwise(name: str, shape: tuple[int, ...]) -> Layer:
    return Layer(name, "elementwise", shape, 0, prod(shape))
