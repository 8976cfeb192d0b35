"""Attribution maps against networks whose answer is known, and the Gini coefficient."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dvmsr.config import DVMSRConfig
from dvmsr.lam.attribution import (
    SIGMA,
    attribution_map,
    baseline,
    blur,
    diffusion_index,
    edge_strength,
    gini,
    integrate,
)
from dvmsr.lam.torch_module import TorchModule
from dvmsr.lam.window import Box
from dvmsr.model import DVMSR

Detector = Callable[[Tensor], Tensor]


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, height, width, generator=generator, dtype=torch.float64)


def seeded(make: Callable[[], nn.Module]) -> TorchModule:
    """A network in FP64 with weights that are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return TorchModule("a network", make().double().eval().requires_grad_(False))


def attributions(
    network: TorchModule, image: Tensor, detector: Detector, steps: int = 4, sigma: float = SIGMA
) -> Tensor:
    return integrate(lambda point: network.gradient(point, detector), image, sigma, steps)


def cnn(activation: type[nn.Module], scale: int = 2) -> nn.Sequential:
    """Two 3x3 convolutions: a receptive field of 5x5 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        activation(),
        nn.Conv2d(8, 3 * scale**2, 3, padding=1),
        nn.PixelShuffle(scale),
    )


def used_by_the_detector(window: Box, scale: int, height: int, width: int) -> np.ndarray:
    """Which pixels of the input (height, width) lie under the pixels of the result that are
    compared: the window, the row below it and the column to its right."""
    used = np.zeros((scale * height, scale * width), bool)
    used[window.y : window.y + window.height + 1, window.x : window.x + window.width] = True
    used[window.y : window.y + window.height, window.x : window.x + window.width + 1] = True
    result: np.ndarray = used.reshape(height, scale, width, scale).any(axis=(1, 3))
    return result


@pytest.mark.parametrize("window", [Box(14, 10, 4, 4), Box(15, 11, 3, 3), Box(0, 0, 2, 2)], ids=str)
def test_nothing_outside_the_receptive_field(window: Box) -> None:
    """Exactly zero outside, and not zero in any pixel inside."""
    height, width, scale, reach = 16, 20, 2, 2
    network = seeded(lambda: cnn(nn.Tanh, scale))
    found = attribution_map(
        attributions(network, noise(height, width), lambda sr: edge_strength(sr, window))
    )
    expected = np.zeros((height, width), bool)
    for y, x in np.argwhere(used_by_the_detector(window, scale, height, width)):
        expected[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
    np.testing.assert_array_equal(found != 0, expected)


def causal(bidirectional: bool) -> TorchModule:
    config = DVMSRConfig(channels=6, depths=(1, 1), state=3, scale=2, bidirectional=bidirectional)
    return seeded(lambda: DVMSR(config))


def last_influence(network: TorchModule, image: Tensor, window: Box) -> int:
    """Index in raster order of the last pixel with any influence."""
    found = attributions(network, image, lambda sr: edge_strength(sr, window), steps=2)
    (indices,) = np.nonzero(attribution_map(found).ravel())
    return int(indices.max())


@pytest.mark.parametrize("window", [Box(12, 4, 4, 4), Box(3, 9, 2, 2)], ids=str)
def test_later_tokens_have_no_influence_on_a_causal_network(window: Box) -> None:
    """A pixel of DVMSR knows all tokens before it, and as many rows and columns after it as there
    are 3x3 convolutions in a row: first, one per RSSB, after the body, upsampler."""
    height, width, scale, convolutions = 20, 24, 2, 5
    row, column = np.argwhere(used_by_the_detector(window, scale, height, width))[-1]
    row, column = row + convolutions, column + convolutions
    assert row < height - 1 and column < width - 1  # there are pixels without influence
    found = last_influence(causal(False), noise(height, width), window)
    assert found == row * width + column


def test_a_bidirectional_network_knows_all_tokens() -> None:
    assert last_influence(causal(True), noise(20, 24), Box(12, 4, 4, 4)) == 20 * 24 - 1


def total(sr: Tensor) -> Tensor:
    return sr[..., 3:9, 4:12].sum()


def gap(network: TorchModule, image: Tensor, detector: Detector, steps: int) -> float:
    """How far the attributions' sum is from the difference that they explain, relative to it."""
    whole = detector(network.enlarge(image)[None])
    none = detector(network.enlarge(baseline(image))[None])
    found = attributions(network, image, detector, steps).sum()
    return abs(float((found - (whole - none)) / (whole - none)))


@pytest.mark.parametrize("steps", [1, 7])
def test_a_linear_network_is_explained_completely(steps: int) -> None:
    """To rounding (FP64), whatever the number of steps."""
    assert gap(seeded(lambda: cnn(nn.Identity)), noise(12, 14), total, steps) < 1e-10


@pytest.mark.parametrize("detector", [total, lambda sr: edge_strength(sr, Box(4, 4, 8, 8))])
def test_more_steps_explain_a_network_more_completely(detector: Detector) -> None:
    """The midpoint rule is of second order: four times the steps, a sixteenth of the gap."""
    network, image = seeded(lambda: cnn(nn.Tanh)), noise(12, 14)
    coarse, fine = gap(network, image, detector, 16), gap(network, image, detector, 64)
    assert fine < coarse / 8 and fine < 1e-3


def test_every_pixel_of_a_separable_network_is_explained() -> None:
    """The integral for a sum of squares is known: x^2 - x0^2 in each pixel, whatever the path."""

    class Square(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image**2

    image = noise(9, 11)
    found = attributions(seeded(Square), image, lambda sr: sr.sum(), steps=200)
    torch.testing.assert_close(found, image**2 - baseline(image) ** 2, rtol=0, atol=1e-5)


def test_the_path_is_walked_step_by_step() -> None:
    seen: list[Tensor] = []
    done: list[None] = []

    def gradient(image: Tensor) -> Tensor:
        seen.append(image)
        return torch.ones_like(image)

    image = noise(6, 7)
    found = integrate(gradient, image, SIGMA, 5, lambda: done.append(None))
    assert len(seen) == len(done) == 5
    torch.testing.assert_close(found, image - baseline(image))
    far = [float((point - image).norm()) for point in seen]
    assert far == sorted(far, reverse=True)


@pytest.mark.parametrize("size", [(9, 12), (1, 1), (2, 30)], ids=str)
def test_blur_is_the_sum_over_mirrored_pixels(size: tuple[int, int]) -> None:
    """Against the two-dimensional sum, pixel by pixel; FP64, 1e-12."""
    sigma, radius = 1.3, 4
    image = noise(*size)
    weights = {
        (i, j): math.exp(-(i * i + j * j) / (2 * sigma**2))
        for i in range(-radius, radius + 1)
        for j in range(-radius, radius + 1)
    }
    mirrored = np.pad(image.numpy(), ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    expected = np.zeros(image.shape)
    for (i, j), weight in weights.items():
        rows = slice(radius + i, radius + i + size[0])
        columns = slice(radius + j, radius + j + size[1])
        expected += weight / sum(weights.values()) * mirrored[:, rows, columns]
    np.testing.assert_allclose(blur(image, sigma, radius), expected, rtol=0, atol=1e-12)


def test_no_blur_is_the_image_itself() -> None:
    image = noise(3, 3)
    assert blur(image, 0.0, 4) is image
    torch.testing.assert_close(blur(image, 0.01, 4), image)


def test_edge_strength_is_the_sum_of_gradient_magnitudes() -> None:
    """Steps of 3 to the right and 4 down: 5 per pixel and channel, less on the image's border."""
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    sr = (3 * x + 4 * y).expand(1, 3, 6, 7)
    assert float(edge_strength(sr, Box(1, 2, 3, 2))) == pytest.approx(5 * 3 * 2 * 3)
    assert float(edge_strength(sr, Box(6, 1, 1, 1))) == pytest.approx(4 * 3)
    assert float(edge_strength(sr, Box(6, 5, 1, 1))) == 0


def test_edge_strength_has_a_gradient_where_all_is_flat() -> None:
    sr = torch.full((1, 3, 5, 5), 0.5, requires_grad=True)
    edge_strength(sr, Box(0, 0, 5, 5)).backward()
    assert sr.grad is not None and not sr.grad.any()


def test_signs_of_channels_cancel_before_they_are_dropped() -> None:
    signed = torch.tensor([[[1.0, -2.0]], [[-1.0, -1.0]], [[0.5, 0.0]]])
    np.testing.assert_array_equal(attribution_map(signed), [[0.5, 3.0]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0] * 9, 0.0),
        ([7.0], 0.0),
        ([0.0] * 9 + [3.0], 1 - 1 / 10),
        ([1.0, 2.0, 3.0], 2 / 9),
        ([[0.0, 1.0], [0.0, 1.0]], 0.5),
    ],
    ids=["uniform", "single", "one-hot", "1-2-3", "halves"],
)
def test_gini_of_known_values(values: list[float], expected: float) -> None:
    assert gini(np.array(values)) == pytest.approx(expected, abs=1e-12)
    assert diffusion_index(np.array(values)) == pytest.approx(100 * (1 - expected), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=20))
def test_gini_is_the_mean_difference_of_all_pairs(numbers: list[float]) -> None:
    values = np.array([*numbers, 1.0])
    pairs = np.abs(values[:, None] - values).sum() / (2 * values.size**2 * values.mean())
    assert gini(values) == pytest.approx(pairs, abs=1e-9)
    assert gini(1e-9 * values) == pytest.approx(gini(values), abs=1e-9)


def test_gini_needs_a_value() -> None:
    with pytest.raises(ValueError, match="zero"):
        gini(np.zeros(4))
