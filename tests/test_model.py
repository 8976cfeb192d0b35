"""The network against a channel-major restatement, and the properties it must have."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dvmsr.config import PRESETS, DVMSRConfig
from dvmsr.model import DVMSR, Mamba, ViMM

TINY = {"channels": 10, "depths": (1, 2), "state": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "student": {},
    "bidirectional": {"bidirectional": True},
    "vimm-residual": {"vimm_residual": True},
    "expand3-conv2": {"expand": 3, "conv_width": 2},
    "conv1": {"conv_width": 1},
    "x2": {"scale": 2},
    "x3": {"scale": 3},
    "shuffle-x2": {"scale": 2, "upsampler": "pixelshuffle"},
    "shuffle-x3": {"scale": 3, "upsampler": "pixelshuffle"},
    "shuffle-x4": {"scale": 4, "upsampler": "pixelshuffle"},
}


def tiny(seed: int = 0, **fields: Any) -> DVMSR:
    """A small network in which every parameter, biases too, matters."""
    torch.manual_seed(seed)
    model = DVMSR(DVMSRConfig(**{**TINY, **fields})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def image(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- parameter counts ---------------------------------------------------------------------------


def count(config: DVMSRConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DVMSR(config).parameters())


@pytest.mark.parametrize("fields, parameters", [({}, 424_428), ({"bidirectional": True}, 484_908)])
def test_parameters_of_the_student(fields: dict[str, Any], parameters: int) -> None:
    assert count(DVMSRConfig(**fields)) == parameters


@pytest.mark.parametrize(
    "channels, depths, millions",
    [
        (180, (2,) * 2, 2.175),
        (180, (2,) * 4, 3.651),
        (180, (2,) * 6, 5.128),
        (180, (2,) * 10, 8.080),
        (150, (2,) * 4, 2.664),
        (192, (2,) * 4, 4.089),
        (210, (2,) * 4, 4.809),
        (180, (6, 6, 6, 6), 7.222),
        (180, (2, 2, 9, 2), 5.214),
        (180, (1, 1, 1, 1), 2.758),
        (192, (2,) * 8, 7.432),
    ],
)
def test_parameters_of_the_papers_tables(
    channels: int, depths: tuple[int, ...], millions: float
) -> None:
    config = DVMSRConfig(channels=channels, depths=depths, upsampler="pixelshuffle")
    assert round(count(config) / 1e6, 3) == millions


def test_parameters_of_the_presets() -> None:
    assert {name: count(config) for name, config in PRESETS.items()} == {
        "student": 424_428,
        "teacher": 7_432_131,
        "ntire-student": 242_388,
        "ntire-teacher": 5_127_519,
    }


# --- what forward computes ----------------------------------------------------------------------


def restated_scan(W: dict[str, Tensor], pre: str, x: Tensor, z: Tensor, b: str) -> Tensor:
    """One direction of the mixer for x and z of shape (b, D, L), channel-major, token by token."""
    weight = W[f"{pre}.conv1d{b}.weight"]
    D, K, L = weight.shape[0], weight.shape[2], x.shape[2]
    u = F.silu(F.conv1d(x, weight, W[f"{pre}.conv1d{b}.bias"], padding=K - 1, groups=D)[..., :L])
    A_log = W[f"{pre}.A{b}_log"]
    N = A_log.shape[1]
    x_dbl = torch.einsum("kd,bdl->bkl", W[f"{pre}.x_proj{b}.weight"], u)
    dt, B, C = x_dbl[:, : -2 * N], x_dbl[:, -2 * N : -N], x_dbl[:, -N:]
    dt = torch.einsum("dr,brl->bdl", W[f"{pre}.dt_proj{b}.weight"], dt)
    dt = torch.log1p(torch.exp(dt + W[f"{pre}.dt_proj{b}.bias"][:, None]))
    h = torch.zeros(x.shape[0], D, N, dtype=x.dtype)
    y = torch.empty_like(u)
    for t in range(L):
        decay = torch.exp(-dt[:, :, t, None] * torch.exp(A_log))
        h = decay * h + (dt[:, :, t] * u[:, :, t])[:, :, None] * B[:, None, :, t]
        y[:, :, t] = torch.einsum("bdn,bn->bd", h, C[:, :, t]) + W[f"{pre}.D{b}"] * u[:, :, t]
    return y * z * torch.sigmoid(z)


def restated(model: DVMSR, pixels: Tensor) -> Tensor:
    """The whole network from its state dict and configuration alone."""
    c, W = model.config, {key: t.to(pixels.dtype) for key, t in model.state_dict().items()}

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, W[f"{name}.weight"], W[f"{name}.bias"], padding=1)

    def norm(name: str, x: Tensor) -> Tensor:  # over the channels of (b, C, ...)
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        shape = (-1, *(1,) * (x.ndim - 2))
        scaled = (x - mean) / torch.sqrt(var + 1e-5)
        return scaled * W[f"{name}.weight"].view(shape) + W[f"{name}.bias"].view(shape)

    mean = torch.tensor([0.4488, 0.4371, 0.4040], dtype=pixels.dtype).view(1, 3, 1, 1)
    shallow = conv("conv_first", pixels - mean)
    x = norm("patch_embed.norm", shallow)
    for i, depth in enumerate(c.depths):
        skip = x
        for j in range(depth):
            block = f"layers.{i}.residual_group.blocks.{j}"
            pre = f"{block}.mixer"
            tokens = norm(f"{block}.norm", x).flatten(2)
            xz = torch.einsum("kc,bcl->bkl", W[f"{pre}.in_proj.weight"], tokens)
            inner, z = xz.chunk(2, 1)
            y = restated_scan(W, pre, inner, z, "")
            if c.bidirectional:
                y = y + restated_scan(W, pre, inner.flip(2), z.flip(2), "_b").flip(2)
            y = torch.einsum("cd,bdl->bcl", W[f"{pre}.out_proj.weight"], y).view_as(x)
            x = x + y if c.vimm_residual else y
        x = conv(f"layers.{i}.conv", x) + skip
    x = conv("conv_after_body", norm("norm_f", x)) + shallow
    if c.upsampler == "pixelshuffledirect":
        return F.pixel_shuffle(conv("upsample.0", x), c.scale) + mean
    x = conv("conv_before_upsample.0", x)
    x = torch.where(x > 0, x, 0.01 * x)
    for name, factor in {4: [("0", 2), ("2", 2)]}.get(c.scale, [("0", c.scale)]):
        x = F.pixel_shuffle(conv(f"upsample.{name}", x), factor)
    return conv("conv_last", x) + mean


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_equals_the_restatement(variant: str) -> None:
    model, pixels = tiny(**VARIANTS[variant]), image(2, 3, 4, 5)
    truth = restated(model, pixels.double())
    scale = model.config.scale
    assert truth.shape == (2, 3, 4 * scale, 5 * scale)
    torch.testing.assert_close(model(pixels).double(), truth, rtol=0, atol=1e-4)
    torch.testing.assert_close(model.double()(pixels.double()), truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("h, w", [(1, 1), (1, 7), (7, 1), (3, 5)])
@torch.no_grad()
def test_any_size(h: int, w: int) -> None:
    model, pixels = tiny(), image(1, 3, h, w)
    y = model(pixels)
    assert y.shape == (1, 3, 4 * h, 4 * w)
    torch.testing.assert_close(y.double(), restated(model, pixels.double()), rtol=0, atol=1e-4)


@torch.no_grad()
def test_images_of_a_batch_are_independent() -> None:
    model, pixels = tiny(bidirectional=True), image(3, 3, 4, 6)
    alone = torch.cat([model(pixels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(pixels), alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_forward_repeats_itself_and_changes_nothing() -> None:
    model, pixels = tiny(), image(1, 3, 5, 4)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    given = pixels.clone()
    first = model(pixels)
    assert torch.equal(first, model(pixels))
    assert torch.equal(given, pixels)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors.items())


@torch.no_grad()
def test_features_are_what_the_upsampler_receives() -> None:
    model, pixels = tiny(), image(1, 3, 4, 5)
    features = model.forward_features(pixels)
    assert features.shape == (1, model.config.channels, 4, 5)
    assert torch.equal(model(pixels), model.upsample(features) + model.mean)


@torch.no_grad()
def test_memory_format_does_not_matter() -> None:
    model, pixels = tiny(upsampler="pixelshuffle"), image(2, 3, 4, 5)
    last = model.to(memory_format=torch.channels_last)(  # type: ignore[call-overload]
        pixels.contiguous(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(last, tiny(upsampler="pixelshuffle")(pixels), rtol=0, atol=1e-4)


@torch.no_grad()
def test_bidirectional_mixer_with_equal_directions_commutes_with_reversal() -> None:
    torch.manual_seed(0)
    mixer = Mamba(DVMSRConfig(**TINY, bidirectional=True))
    forward = dict(mixer.named_parameters())
    for name, parameter in forward.items():
        if "_b" in name:
            parameter.copy_(forward[name.replace("_b", "", 1)])
    tokens = torch.randn(2, 9, 10)
    torch.testing.assert_close(mixer(tokens).flip(1), mixer(tokens.flip(1)), rtol=0, atol=1e-6)


@torch.no_grad()
def test_vimm_is_causal() -> None:
    torch.manual_seed(0)
    vimm = ViMM(DVMSRConfig(**TINY))
    tokens = torch.randn(1, 12, 10)
    changed = tokens.clone()
    changed[:, 7:] += 1
    torch.testing.assert_close(vimm(tokens)[:, :7], vimm(changed)[:, :7], rtol=0, atol=1e-6)


@torch.no_grad()
def test_vimm_residual_adds_the_input() -> None:
    torch.manual_seed(0)
    vimm = ViMM(DVMSRConfig(**TINY, vimm_residual=True))
    torch.nn.init.zeros_(vimm.mixer.out_proj.weight)
    tokens = torch.randn(1, 5, 10)
    assert torch.equal(vimm(tokens), tokens)


@torch.no_grad()
def test_half_precision_keeps_the_ssm_parameters_wide() -> None:
    model, pixels = tiny(), image(1, 3, 4, 5)
    truth = model(pixels)
    half = model.bfloat16()(pixels.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), truth, rtol=0, atol=0.1)


# --- training -----------------------------------------------------------------------------------


def test_initialisation_is_mambas() -> None:
    torch.manual_seed(0)
    model = DVMSR(DVMSRConfig(bidirectional=True))
    mixer = model.layers[0].residual_group.blocks[0].mixer
    assert isinstance(mixer, Mamba)
    for A_log, D, dt_proj in [
        (mixer.A_log, mixer.D, mixer.dt_proj),
        (mixer.A_b_log, mixer.D_b, mixer.dt_proj_b),
    ]:
        torch.testing.assert_close(A_log.exp(), torch.arange(1.0, 17).expand(120, 16))
        assert torch.equal(D, torch.ones(120))
        dt = F.softplus(dt_proj.bias.double())
        assert 0.00099 < dt.min() < 0.002 and 0.05 < dt.max() < 0.1001
        assert abs(dt.log().mean() - math.log(0.01)) < 0.5  # the middle of [0.001, 0.1] in logs
        assert 0.45 < dt_proj.weight.abs().max() <= 0.5  # 4 ** -0.5
    for linear in (mixer.in_proj, mixer.x_proj, mixer.x_proj_b, mixer.out_proj):
        assert abs(linear.weight.std() - 0.02) < 0.001
        assert linear.bias is None


def test_gradient_reaches_every_parameter() -> None:
    model = tiny(bidirectional=True, upsampler="pixelshuffle").train()
    model(image(1, 3, 3, 4)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_mean_is_a_buffer_outside_the_state_dict() -> None:
    model = tiny()
    assert "mean" not in model.state_dict()
    assert model.double().mean.dtype == torch.float64
