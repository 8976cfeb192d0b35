from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiffs import SHORT, write_tiff

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images.decode import read_image
from dvmsr.runtime.images.rows import vips
from dvmsr.runtime.images.rows.reader import open_rows
from dvmsr.runtime.images.samples import Samples

INVERTED, GRAY, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
HEIGHT, WIDTH = 6, 11

needs_vips = pytest.mark.skipif(not vips.installed(), reason="pyvips is not installed")


def samples(bits: int, bands: int) -> NDArray[np.int64]:
    """(H, W, bands) over the whole range; the last of 2 or 4 bands is the largest, as alpha is that
    the others are multiplied by."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ramp = np.stack([(x * 23 + y * 5 + 60 * k) % 251 for k in range(bands)], -1)
    if bands in (2, 4):
        ramp[..., :-1] = ramp[..., :-1] * ramp[..., -1:] // 255
    return ramp * ((1 << bits) - 1) // 255


def eight(values: NDArray[np.int64], bits: int) -> NDArray[np.float64]:
    return np.rint(values * 255 / ((1 << bits) - 1))


def by_rows(path: Path) -> NDArray[Any]:
    strips = list(open_rows(path, path.parent).strips(4))
    pixels = np.concatenate(strips)
    return pixels if pixels.dtype == np.uint8 else (pixels.astype(np.uint32) + 128) // 257


def in_memory(path: Path) -> NDArray[Any]:
    pixels = np.asarray(read_image(path))
    return pixels.reshape(*pixels.shape[:2], -1)


WAYS = [
    pytest.param(in_memory, id="memory"),
    pytest.param(by_rows, id="rows", marks=needs_vips),
]

# photometric, bits, bands, options, readable in memory, by rows
KINDS: list[tuple[str, int, int, int, dict[str, Any], bool, bool]] = [
    ("gray1", GRAY, 1, 1, {}, True, True),
    ("gray1-inverted", INVERTED, 1, 1, {}, True, True),
    ("gray1-low-bits-first", GRAY, 1, 1, {"reversed_bits": True}, True, True),
    ("gray2", GRAY, 2, 1, {}, True, True),
    ("gray4", GRAY, 4, 1, {}, True, True),
    ("gray4-inverted", INVERTED, 4, 1, {}, True, True),
    ("gray8", GRAY, 8, 1, {}, True, True),
    ("gray8-inverted", INVERTED, 8, 1, {}, True, True),
    ("gray8-inverted-low-bits-first", INVERTED, 8, 1, {"reversed_bits": True}, False, True),
    ("gray8-signed", GRAY, 8, 1, {"format": 2}, False, False),
    ("gray8-alpha", GRAY, 8, 2, {"extra": [2]}, True, True),
    ("gray8-planar-alpha", GRAY, 8, 2, {"extra": [2], "planar": True}, False, False),
    ("gray10", GRAY, 10, 1, {}, False, False),
    ("gray12", GRAY, 12, 1, {}, True, False),
    ("gray12-big-endian", GRAY, 12, 1, {"order": ">"}, False, False),
    ("gray14", GRAY, 14, 1, {}, False, False),
    ("gray16", GRAY, 16, 1, {}, True, True),
    ("gray16-big-endian", GRAY, 16, 1, {"order": ">"}, True, True),
    ("gray16-inverted", INVERTED, 16, 1, {}, False, True),
    ("gray16-signed", GRAY, 16, 1, {"format": 2}, False, False),
    ("gray16-float", GRAY, 16, 1, {"format": 3}, False, False),
    ("gray24", GRAY, 24, 1, {}, False, False),
    ("gray32", GRAY, 32, 1, {}, False, False),
    ("gray32-float", GRAY, 32, 1, {"format": 3}, False, False),
    ("palette1", PALETTE, 1, 1, {}, True, True),
    ("palette4", PALETTE, 4, 1, {}, True, True),
    ("palette8", PALETTE, 8, 1, {}, True, True),
    ("palette8-low-bits-first", PALETTE, 8, 1, {"reversed_bits": True}, False, True),
    ("rgb4", RGB, 4, 3, {}, False, False),
    ("rgb8", RGB, 8, 3, {}, True, True),
    ("rgb8-planar", RGB, 8, 3, {"planar": True}, True, True),
    ("rgb8-low-bits-first", RGB, 8, 3, {"reversed_bits": True}, True, True),
    ("rgb8-planar-low-bits", RGB, 8, 3, {"planar": True, "reversed_bits": True}, False, True),
    ("rgb8-signed", RGB, 8, 3, {"format": 2}, False, False),
    ("rgb8-alpha", RGB, 8, 4, {"extra": [2]}, True, True),
    ("rgb8-alpha-untold", RGB, 8, 4, {}, True, True),
    ("rgb12", RGB, 12, 3, {}, False, False),
    ("rgb16", RGB, 16, 3, {}, True, True),
    ("rgb16-big-endian", RGB, 16, 3, {"order": ">"}, True, True),
    ("rgb16-planar", RGB, 16, 3, {"planar": True}, False, True),
    ("rgb16-signed", RGB, 16, 3, {"format": 2}, False, False),
    ("rgb32-float", RGB, 32, 3, {"format": 3}, False, False),
    ("rgb16-alpha", RGB, 16, 4, {"extra": [2]}, True, True),
    ("sensor16", 32803, 16, 1, {}, False, False),
    ("ycbcr8-planar", YCBCR, 8, 3, {"planar": True}, False, False),
    ("lab16", LAB, 16, 3, {}, False, False),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("photometric", "bits", "bands", "options", "memory", "rows"),
    [kind[1:] for kind in KINDS],
    ids=[kind[0] for kind in KINDS],
)
@pytest.mark.filterwarnings("ignore:.*bits per channel are reduced")
def test_every_kind_is_right_or_refused_by_name(
    tmp_path: Path,
    way: Callable[[Path], NDArray[Any]],
    photometric: int,
    bits: int,
    bands: int,
    options: dict[str, Any],
    memory: bool,
    rows: bool,
) -> None:
    values = samples(bits, bands)
    path = write_tiff(tmp_path / "p.tif", values, bits, photometric, **options)
    if not (memory if way is in_memory else rows):
        name = f"{bits}-bit .*samples|bits per pixel"
        with pytest.raises(
            DvmsrError, match=rf"p\.tif (has|is damaged or TIFF) .*({name}).*; .*con"
        ):
            way(path)
        return
    want = eight(values, bits)
    if photometric == INVERTED:
        want = 255 - want
    got = way(path)
    if photometric == PALETTE or (way is by_rows and got.shape[2] != bands):
        want = np.repeat(want, 3, -1)[..., : got.shape[2]]
    np.testing.assert_allclose(got, want, atol=1 if bits == 16 else 0)


@pytest.mark.parametrize(
    ("way", "bits", "photometric", "bands"),
    [
        pytest.param(
            *way.values, bits, photometric, bands, id=f"{way.id}-{bits}-{bands}", marks=way.marks
        )
        for way in WAYS
        for bits, photometric, bands in [(8, GRAY, 2), (8, RGB, 4), (16, GRAY, 2), (16, RGB, 4)]
        if (way.id, bits, bands) != ("memory", 16, 2)  # refused by name
    ],
)
@pytest.mark.filterwarnings("ignore:.*bits per channel are reduced|.*metadata is damaged")
def test_colours_multiplied_by_alpha_are_divided(
    tmp_path: Path, way: Any, bits: int, photometric: int, bands: int
) -> None:
    values = samples(bits, bands)
    path = write_tiff(tmp_path / "p.tif", values, bits, photometric, extra=[1])
    visible = values[..., -1] > 16
    most, alpha = (1 << bits) - 1, values[visible][:, -1:]
    want = eight(values[visible][:, :-1] * most / alpha, bits)
    np.testing.assert_allclose(way(path)[visible][:, :-1].astype(float), want, atol=2)


@pytest.mark.parametrize(
    ("extra", "said"), [([0], "a band that is"), ([0, 0, 0], "3 bands that are")]
)
def test_bands_beyond_colours_are_left_out_with_a_warning(
    tmp_path: Path, extra: list[int], said: str
) -> None:
    values = samples(8, 3 + len(extra))
    path = write_tiff(tmp_path / "p.tif", values, 8, RGB, extra=extra)
    with pytest.warns(UserWarning, match=f"p.tif: {said} neither colour nor alpha, left out"):
        np.testing.assert_array_equal(in_memory(path), values[..., :3])


@needs_vips
def test_a_band_beyond_colours_is_left_out_by_rows_with_a_warning(tmp_path: Path) -> None:
    values = samples(8, 4)
    path = write_tiff(tmp_path / "p.tif", values, 8, RGB, extra=[0])
    with pytest.warns(UserWarning, match="a band that is neither colour nor alpha"):
        np.testing.assert_array_equal(by_rows(path), values[..., :3])


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({258: (12,), 262: (1,)}, "12-bit gray samples"),
        ({258: (16,), 262: (1,), 339: (2,)}, "16-bit signed gray samples"),
        (
            {258: (8, 8, 8), 262: (2,), 277: (3,), 284: (2,)},
            "8-bit RGB samples in 3 bands, one band after the other",
        ),
        ({258: (8,), 262: (0,), 266: (2,)}, "8-bit inverted gray samples, low bits first"),
        ({258: (5, 6, 5), 262: (2,), 277: (3,)}, "5/6-bit RGB samples in 3 bands"),
        ({258: (8,), 262: (99,)}, "8-bit kind 99 of samples"),
        ({}, "1-bit inverted gray samples"),
    ],
)
def test_words(tags: dict[int, tuple[int, ...]], said: str) -> None:
    assert str(Samples.of(tags)) == said


def bmp(path: Path, bits: int, packing: int, masks: bytes = b"", data: bytes = bytes(64)) -> Path:
    info = (40).to_bytes(4, "little") + (2).to_bytes(4, "little") + (2).to_bytes(4, "little")
    info += (1).to_bytes(2, "little") + bits.to_bytes(2, "little") + packing.to_bytes(4, "little")
    info += bytes(20) + masks
    path.write_bytes(
        b"BM"
        + (14 + len(info) + len(data)).to_bytes(4, "little")
        + bytes(4)
        + (14 + len(info)).to_bytes(4, "little")
        + info
        + data
    )
    return path


def test_bmp_of_16_bits_is_right(tmp_path: Path) -> None:
    data = bytes([0x00, 0xF8, 0xE0, 0x07, 0x1F, 0x00, 0xFF, 0xFF])
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xF800, 0x07E0, 0x001F))
    image = np.asarray(read_image(bmp(tmp_path / "p.bmp", 16, 3, masks, data)))
    np.testing.assert_array_equal(
        image, [[[0, 0, 255], [255, 255, 255]], [[255, 0, 0], [0, 255, 0]]]
    )


@pytest.mark.parametrize(
    ("bits", "packing", "masks"),
    [
        (32, 3, (0x3FF00000, 0xFFC00, 0x3FF)),
        (2, 0, ()),
        (64, 0, ()),
        (24, 9, ()),
    ],
    ids=["10-10-10", "2-bit", "64-bit", "packing-9"],
)
def test_bmp_of_an_unknown_kind_is_refused_by_name(
    tmp_path: Path, bits: int, packing: int, masks: tuple[int, ...]
) -> None:
    stored = b"".join(mask.to_bytes(4, "little") for mask in masks)
    path = bmp(tmp_path / "p.bmp", bits, packing, stored)
    with pytest.raises(
        DvmsrError, match=rf"BMP of a kind .*\({bits} bits per pixel, packed in way {packing}\)"
    ):
        read_image(path)


def test_16_bits_in_memory_are_reduced_with_a_warning() -> None:
    from dvmsr.runtime.images.decode import normalise

    deep = Image.fromarray((np.arange(12).reshape(3, 4) * 5000).astype(np.uint16))
    with pytest.warns(UserWarning, match="the image: 16 bits per channel are reduced to 8; remedy"):
        shallow = normalise(deep, "the image", remedy="remedy")
    np.testing.assert_allclose(np.asarray(shallow), np.asarray(deep) / 257, atol=0.51)


@pytest.fixture(autouse=True)
def _no_warning_unless_expected(request: pytest.FixtureRequest) -> Any:
    if any(request.node.iter_markers("filterwarnings")):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_of_8_bits_is_read_as_it_was_meant(tmp_path: Path, bits: int) -> None:
    values = samples(bits, 1)
    ramp = [k * 255 // ((1 << bits) - 1) for k in range(1 << bits)]
    more = {320: (SHORT, ramp * 3)}
    path = write_tiff(tmp_path / "p.tif", values, bits, PALETTE, more=more)
    np.testing.assert_array_equal(in_memory(path), np.repeat(eight(values, bits), 3, -1))


@pytest.mark.parametrize(
    ("compression", "name"), [(34887, "LERC"), (50002, "JPEG XL"), (33005, "JPEG 2000")]
)
def test_a_compression_that_is_not_read_is_named(
    tmp_path: Path, compression: int, name: str
) -> None:
    path = write_tiff(tmp_path / "p.tif", samples(8, 3), 8, RGB, more={259: (SHORT, [compression])})
    for way in (in_memory, by_rows) if vips.installed() else (in_memory,):
        with pytest.raises(DvmsrError, match=rf"p\.tif .*compressed as {name}.*; .*convert it"):
            way(path)
