"""PyTorch strip by strip against PyTorch on the whole image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import official_weights, requires_shared
from torch import Tensor

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.data.natural_image import natural_image
from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.model import DVMSR
from dvmsr.streaming import stream

LIMIT = 1e-4
"""Largest difference in an output whose range is about 1, FP32."""

TINY = DVMSRConfig(channels=10, depths=(1, 2), state=3, scale=2)
VARIANTS = {
    "x2": TINY,
    "x3": replace(TINY, scale=3),
    "x4": replace(TINY, scale=4),
    "shuffle-x2": replace(TINY, upsampler="pixelshuffle"),
    "shuffle-x3": replace(TINY, upsampler="pixelshuffle", scale=3),
    "shuffle-x4": replace(TINY, upsampler="pixelshuffle", scale=4),
    "vimm-residual": replace(TINY, vimm_residual=True),
    "expand3-conv2": replace(TINY, expand=3, conv_width=2),
    "conv1": replace(TINY, conv_width=1),
}


def network_of(config: DVMSRConfig) -> DVMSR:
    """A network in which every parameter, biases too, matters."""
    torch.manual_seed(0)
    network = DVMSR(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


def difference(network: DVMSR, image: Tensor, rows: int | list[int]) -> float:
    """Largest absolute difference between the streamed and the whole image."""
    with torch.inference_mode():
        streamed = torch.cat([*stream(network, image.split(rows, 2))], 2)
        whole = network(image)
    assert streamed.shape == whole.shape
    return float((streamed - whole).abs().max())


@pytest.fixture(scope="module")
def student() -> DVMSR:
    return network_of(DVMSRConfig())


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 16, 64])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 5), (8, 8), (70, 12)], ids=str)
def test_student(student: DVMSR, size: tuple[int, int], rows: int) -> None:
    assert difference(student, torch.from_numpy(natural_image((1, *size))), rows) <= LIMIT


@pytest.mark.slow
@requires_shared
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 16, 64])
@pytest.mark.parametrize("size", [(5, 9), (75, 40)], ids=str)
def test_official_student(size: tuple[int, int], rows: int) -> None:
    network = checkpoint.load(official_weights("dvmsr_df2k"))
    assert difference(network, torch.from_numpy(natural_image((1, *size))), rows) <= LIMIT


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_architecture(config: DVMSRConfig) -> None:
    image = torch.from_numpy(natural_image((2, 13, 4)))
    network = network_of(config)
    for rows in (1, 5, 13):
        assert difference(network, image, rows) <= LIMIT


@given(
    variant=st.sampled_from(sorted(VARIANTS)),
    rows=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    width=st.integers(1, 9),
)
@settings(max_examples=25, deadline=None)
def test_any_strips(variant: str, rows: list[int], width: int) -> None:
    image = torch.rand(1, 3, sum(rows), width, generator=torch.Generator().manual_seed(0))
    assert difference(network_of(VARIANTS[variant]), image, rows) <= LIMIT


def test_rows_come_before_the_last_strip(student: DVMSR) -> None:
    """7 rows of the input late, and not all at the end."""
    seen = 0

    def strips() -> object:
        nonlocal seen
        for _ in range(5):
            seen += 4
            yield torch.zeros(1, 3, 4, 2)

    with torch.inference_mode():
        given = [(seen, piece.shape[2] // 4) for piece in stream(student, strips())]  # type: ignore[arg-type]
    assert given == [(12, 1), (16, 4), (20, 4), (20, 11)]


def test_half_precision_keeps_the_scan_in_fp32() -> None:
    network = network_of(TINY).to(torch.bfloat16)
    image = torch.rand(1, 3, 20, 6).to(torch.bfloat16)
    with torch.inference_mode():
        streamed = torch.cat([*stream(network, image.split(3, 2))], 2)
        whole = network(image)
    assert streamed.dtype == torch.bfloat16
    assert (streamed - whole).abs().max() <= 0.02 * whole.abs().max()


def test_what_cannot_stream() -> None:
    image = torch.zeros(1, 3, 4, 4)
    with pytest.raises(IncompatibleModelError, match="cannot stream"):
        next(stream(network_of(replace(TINY, bidirectional=True)), [image]))
    with pytest.raises(UsageError, match="no rows"):
        next(stream(network_of(TINY), []))
