from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dvmsr.runtime.images.alpha import extend_colours
from dvmsr.runtime.images.rows.alpha import EnlargedAlpha, extended_strips


def cut_out(mode: str, height: int, width: int, hidden: float, seed: int) -> Image.Image:
    """Noise, in blocks of which that share is transparent, with some half-transparent pixels."""
    rng = np.random.default_rng(seed)
    bands = len(mode)
    pixels = rng.integers(0, 256, (height, width, bands), np.uint8)
    blocks = rng.random((height // 16 + 1, width // 16 + 1)) >= hidden
    visible = np.kron(blocks, np.ones((16, 16), bool))[:height, :width]
    pixels[..., -1] = np.where(visible, np.maximum(pixels[..., -1], 1), 0)
    return Image.fromarray(pixels)


def reader(image: Image.Image, rows: int) -> Iterator[Image.Image]:
    for start in range(0, image.height, rows):
        yield image.crop((0, start, image.width, min(start + rows, image.height)))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@settings(max_examples=8, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 60),
    rows=st.integers(1, 70),
    hidden=st.sampled_from([0, 0.3, 0.95, 1]),
    seed=st.integers(0, 9),
)
def test_hidden_colours_are_those_of_the_whole_picture(
    mode: str, height: int, width: int, rows: int, hidden: float, seed: int
) -> None:
    image = cut_out(mode, height, width, hidden, seed)
    strips = list(extended_strips(lambda n: reader(image, n), height, rows))
    whole = extend_colours(image)
    assert {strip.mode for strip in strips} == {whole.mode}
    np.testing.assert_array_equal(np.concatenate(list(map(np.asarray, strips))), whole)


@settings(max_examples=8, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 30),
    scale=st.sampled_from([2, 3, 4]),
    rows=st.integers(1, 20),
)
def test_alpha_is_that_of_the_whole_picture(height: int, width: int, scale: int, rows: int) -> None:
    """Taken at least three rows late, as the network does."""
    alpha = cut_out("LA", height, width, 0.3, 0).getchannel("A")
    enlarged = EnlargedAlpha(scale)
    added, done, pieces = 0, 0, []
    for strip in reader(alpha, rows):
        enlarged.add(np.asarray(strip))
        added += strip.height
        ready = (height if added == height else max(added - 3, 0)) - done
        if ready:
            pieces.append(enlarged.take(ready))
            done += ready
    whole = alpha.resize((scale * width, scale * height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
