"""DVMSR (arXiv 2405.03008, "Distillated Vision Mamba for Efficient Super-Resolution").

    image - mean -> conv_first -> LayerNorm -> RSSBs -> LayerNorm -> conv_after_body
                        |                                                   |
                        +-------------------------------------------------- + -> upsampler + mean

An RSSB (residual state-space block) is a chain of ViMMs (vision Mamba modules), a 3x3 convolution
and a skip. Between convolutions the image is a sequence of its pixels in raster order.

Shapes: b batch, h w height and width, L = h * w tokens, C channels, D = expand * C inner channels,
N state size, R rank of delta, K taps of the causal convolution, s scale. Tokens are (b, L, C)
everywhere: the operators, linear layers and norms need no transposes, and a token tensor is a
channels-last image as it stands. Parameter names are those of the official checkpoints.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvmsr import ops
from dvmsr.config import UPSAMPLER_CHANNELS, DVMSRConfig

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K in [0, 1], subtracted from the input and added to the output."""

DT_RANGE = (1e-3, 1e-1)


class DVMSR(nn.Module):
    """The whole network, its weights freshly initialised as for training."""

    mean: Tensor

    def __init__(self, config: DVMSRConfig) -> None:
        super().__init__()
        self.config = config
        C, s = config.channels, config.scale
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = conv3x3(3, C)
        self.patch_embed = named(norm=nn.LayerNorm(C))
        self.layers = nn.Sequential(*(RSSB(config, depth) for depth in config.depths))
        self.norm_f = nn.LayerNorm(C)
        self.conv_after_body = conv3x3(C, C)
        self.conv_before_upsample: nn.Module = nn.Identity()
        self.conv_last: nn.Module = nn.Identity()
        if config.upsampler == "pixelshuffledirect":
            self.upsample = shuffle_upsampler(C, 3, [s])
        else:
            U = UPSAMPLER_CHANNELS
            self.conv_before_upsample = nn.Sequential(conv3x3(C, U), nn.LeakyReLU(0.01))
            self.upsample = shuffle_upsampler(U, U, [2, 2] if s == 4 else [s])
            self.conv_last = conv3x3(U, 3)

    def forward(self, image: Tensor) -> Tensor:
        """Upscale.

        Args:
            image: RGB in [0, 1], (b, 3, h, w), any h, w >= 1.

        Returns:
            (b, 3, s*h, s*w), about [0, 1] and not clamped.
        """
        x = self.forward_features(image)  # (b, C, h, w)
        x = self.conv_last(self.upsample(self.conv_before_upsample(x)))  # (b, 3, s*h, s*w)
        return x + self.mean

    def forward_features(self, image: Tensor) -> Tensor:
        """The feature map that the upsampler receives, (b, C, h, w)."""
        size = image.shape[2:]
        shallow = self.conv_first(image - self.mean)  # (b, C, h, w)
        x = self.patch_embed(to_tokens(shallow))  # (b, L, C)
        for rssb in self.layers:
            x = rssb(x, size)  # (b, L, C)
        deep = self.conv_after_body(to_image(self.norm_f(x), size))  # (b, C, h, w)
        return deep + shallow


class RSSB(nn.Module):
    """Residual state-space block: ViMMs, a 3x3 convolution, and the input added."""

    def __init__(self, config: DVMSRConfig, depth: int) -> None:
        super().__init__()
        self.residual_group = named(blocks=nn.Sequential(*(ViMM(config) for _ in range(depth))))
        self.conv = conv3x3(config.channels, config.channels)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """(b, L, C) and (h, w) -> (b, L, C)."""
        deep = self.residual_group(x)  # (b, L, C)
        return to_tokens(self.conv(to_image(deep, size))) + x


class ViMM(nn.Module):
    """Vision Mamba module: LayerNorm and a Mamba mixer (Eq. 4; its residual is optional)."""

    def __init__(self, config: DVMSRConfig) -> None:
        super().__init__()
        self.residual = config.vimm_residual
        self.norm = nn.LayerNorm(config.channels)
        self.mixer = Mamba(config)

    def forward(self, x: Tensor) -> Tensor:
        """(b, L, C) -> (b, L, C)."""
        y = self.mixer(self.norm(x))  # (b, L, C)
        return x + y if self.residual else y


class Mamba(nn.Module):
    """The gated selective state-space mixer of Mamba (arXiv 2312.00752, Fig. 3), in one direction
    or, as in Vision Mamba (arXiv 2401.09417), in both with shared in and out projections."""

    def __init__(self, config: DVMSRConfig) -> None:
        super().__init__()
        C, D, N = config.channels, config.inner_channels, config.state
        R, K = config.dt_rank, config.conv_width
        self.sizes = [R, N, N]
        self.bidirectional = config.bidirectional
        self.in_proj = linear(C, 2 * D)
        self.out_proj = linear(D, C)

        self.conv1d = nn.Conv1d(D, D, K, groups=D)
        self.x_proj = linear(D, R + 2 * N)
        self.dt_proj = delta_projection(R, D)
        self.A_log = initial_A_log(D, N)
        self.D = nn.Parameter(torch.ones(D))
        if config.bidirectional:
            self.conv1d_b = nn.Conv1d(D, D, K, groups=D)
            self.x_proj_b = linear(D, R + 2 * N)
            self.dt_proj_b = delta_projection(R, D)
            self.A_b_log = initial_A_log(D, N)
            self.D_b = nn.Parameter(torch.ones(D))

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, L, C) -> (b, L, C)."""
        x, z = self.project(tokens)  # (b, L, D)
        y, _, _ = self.scan(x, z, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        if self.bidirectional:
            x_b, z_b = x.flip(1), z.flip(1)  # (b, L, D), last token first
            y_b, _, _ = self.scan(
                x_b, z_b, self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b
            )
            y = y + y_b.flip(1)  # (b, L, D)
        return self.out_proj(y)  # (b, L, C)

    def step(self, tokens: Tensor, tail: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next tokens of a sequence, in one direction only.

        Args:
            tokens: (b, L, C).
            tail: the K-1 tokens before as the causal convolution takes them, (b, K-1, D).
            h: state of the scan, (b, D, N).

        Returns:
            (b, L, C), and tail and h after the last token.
        """
        x, z = self.project(tokens)  # (b, L, D)
        y, tail, h = self.scan(
            x, z, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, tail, h
        )
        return self.out_proj(y), tail, h

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(b, L, C) -> x and z, (b, L, D) each."""
        # Splitting weights, not activations, leaves every operand of the operators contiguous.
        W_x, W_z = self.in_proj.weight.chunk(2)  # (D, C) each
        return F.linear(tokens, W_x), F.linear(tokens, W_z)

    def scan(
        self,
        x: Tensor,
        z: Tensor,
        conv1d: nn.Conv1d,
        x_proj: nn.Linear,
        dt_proj: nn.Linear,
        A_log: Tensor,
        D: Tensor,
        tail: Tensor | None = None,
        h: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Causal convolution, then the SSM whose delta, B and C depend on the token.

        x and z are (b, L, D), as is the first result; the others are tail and h after it.
        """
        assert conv1d.bias is not None
        u, tail = ops.causal_conv1d(x, conv1d.weight.squeeze(1), conv1d.bias, tail)  # (b, L, D)
        W_dt, W_B, W_C = x_proj.weight.split(self.sizes)  # (R, D), (N, D), (N, D)
        delta = F.linear(F.linear(u, W_dt), dt_proj.weight)  # (b, L, D), before bias and softplus
        B = F.linear(u, W_B).unsqueeze(2)  # (b, L, 1, N): one group
        C = F.linear(u, W_C).unsqueeze(2)  # (b, L, 1, N)
        A = -torch.exp(at_least_fp32(A_log))  # (D, N)
        y, h = ops.selective_scan(
            u, delta, A, B, C, at_least_fp32(D), at_least_fp32(dt_proj.bias), h, z
        )
        return y, tail, h  # y (b, L, D), gated by SiLU(z)


def to_tokens(image: Tensor) -> Tensor:
    """(b, C, h, w) -> (b, h*w, C)."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def to_image(tokens: Tensor, size: torch.Size) -> Tensor:
    """(b, h*w, C) and (h, w) -> (b, C, h, w), a channels-last view."""
    return tokens.unflatten(1, size).permute(0, 3, 1, 2)


def at_least_fp32(x: Tensor) -> Tensor:
    """Half-precision networks keep A, D and the bias of delta in FP32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def named(**modules: nn.Module) -> nn.Sequential:
    """A chain whose links carry the names that the official checkpoints use."""
    return nn.Sequential(OrderedDict(modules))


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def shuffle_upsampler(in_channels: int, out_channels: int, factors: list[int]) -> nn.Sequential:
    """A convolution and a pixel shuffle per factor."""
    chain: list[nn.Module] = []
    for factor in factors:
        chain += [conv3x3(in_channels, out_channels * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*chain)


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer without bias, weights normal with standard deviation 0.02."""
    layer = nn.Linear(in_features, out_features, bias=False)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    return layer


def delta_projection(rank: int, channels: int) -> nn.Linear:
    """R -> D. Its bias makes softplus(bias) log-uniform in DT_RANGE."""
    layer = nn.Linear(rank, channels)
    nn.init.uniform_(layer.weight, -(rank**-0.5), rank**-0.5)
    low, high = (math.log(limit) for limit in DT_RANGE)
    dt = torch.exp(torch.empty(channels).uniform_(low, high))
    with torch.no_grad():
        layer.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
    return layer


def reset_delta_projections(model: nn.Module) -> None:
    """Initialise them as the official code ends up doing: like any linear layer, with a zero bias.

    It resets all linear layers after Mamba has set this one, so that every channel begins with
    delta = softplus(0) = 0.69, far above DT_RANGE.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and "dt_proj" in name:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)


def initial_A_log(channels: int, state: int) -> nn.Parameter:
    """S4D-real: A = -(1, 2, ..., N) in every channel. (D, N)"""
    return nn.Parameter(torch.arange(1.0, state + 1).log().repeat(channels, 1))
