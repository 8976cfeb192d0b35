"""Every kind of PNG, in memory and by rows (PNG 3.0, section 11.2.1)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from profiles import WIDE

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images.annotations import chunk
from dvmsr.runtime.images.decode import read_image
from dvmsr.runtime.images.picture import read_picture
from dvmsr.runtime.images.rows import vips
from dvmsr.runtime.images.rows.reader import open_rows

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
BANDS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}
KINDS = [
    *((GRAY, bits) for bits in (1, 2, 4, 8, 16)),
    *((PALETTE, bits) for bits in (1, 2, 4, 8)),
    *((kind, bits) for kind in (RGB, GRAY_ALPHA, RGBA) for bits in (8, 16)),
]
HEIGHT, WIDTH = 5, 9
PASSES = [
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
]
"""Of Adam7: first row and column, and steps (section 8.2)."""


def values(kind: int, bits: int) -> NDArray[np.int64]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    bands = np.stack([(x * 29 + y * 13 + 60 * k) % 251 for k in range(BANDS[kind])], -1)
    return bands * ((1 << bits) - 1) // 255


def packed(samples: NDArray[np.int64], bits: int) -> bytes:
    if not samples.size:
        return b""
    rows = samples.reshape(len(samples), -1)
    if bits == 16:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    stream = rows[..., None] >> np.arange(bits)[::-1] & 1
    lines = np.packbits(stream.astype(np.uint8).reshape(len(rows), -1), axis=1)
    return b"".join(b"\0" + line.tobytes() for line in lines)


def write(path: Path, kind: int, bits: int, interlaced: bool = False, *more: bytes) -> Path:
    samples = values(kind, bits)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, int(interlaced))
    parts = [chunk(b"IHDR", head), *more]
    if kind == PALETTE:
        ramp = np.arange(1 << bits) * 255 // ((1 << bits) - 1)
        parts.append(chunk(b"PLTE", np.repeat(ramp, 3).astype(np.uint8).tobytes()))
    data = (
        b"".join(packed(samples[a::c, b::d], bits) for a, b, c, d in PASSES)
        if interlaced
        else packed(samples, bits)
    )
    parts += [chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def in_memory(path: Path) -> NDArray[Any]:
    image = read_image(path)
    return np.asarray(image).reshape(image.height, image.width, -1)


def by_rows(path: Path) -> NDArray[Any]:
    pixels = np.concatenate(list(open_rows(path, path.parent).strips(2)))
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float64) / 257


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize(("kind", "bits"), KINDS)
@pytest.mark.parametrize(
    "way",
    [
        in_memory,
        pytest.param(
            by_rows, marks=pytest.mark.skipif(not vips.installed(), reason="needs the extra large")
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*16 bits per channel are reduced")
def test_every_kind_is_read_right(
    tmp_path: Path, way: Any, kind: int, bits: int, interlaced: bool
) -> None:
    got = way(write(tmp_path / "p.png", kind, bits, interlaced))
    want = values(kind, bits) * 255 / ((1 << bits) - 1)
    if kind == PALETTE:
        want = np.repeat(want, 3, -1)
        got = np.repeat(got, 3, -1) if got.shape[2] == 1 else got
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1 if bits == 16 else 0)


def profile_of(size: int) -> bytes:
    """A colour profile of so many bytes."""
    return size.to_bytes(4, "big") + WIDE[4:].ljust(size - 4, b"\0")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.filterwarnings("ignore:.*16 bits per channel are reduced")
def test_large_profiles_and_texts_are_no_damage(tmp_path: Path, bits: int) -> None:
    profile = profile_of(1_500_000)
    text = zlib.compress(b"prompt " * 300_000)
    more = [
        chunk(b"iCCP", b"ICC\0\0" + zlib.compress(profile)),
        chunk(b"zTXt", b"workflow\0\0" + text),
    ]
    path = write(tmp_path / "p.png", RGB, bits, False, *more)
    picture = read_picture(path, lambda header: None)
    assert picture.frames[0].info["icc_profile"] == profile
    assert picture.metadata.chunks == ((b"zTXt", b"workflow\0\0" + text),)
    if vips.installed():
        reader = open_rows(path, tmp_path)
        assert reader.profile == profile
        assert reader.metadata.chunks == picture.metadata.chunks


@pytest.mark.parametrize(
    "more",
    [
        chunk(b"iCCP", b"ICC\0\0" + zlib.compress(profile_of(17 << 20), 9)),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(17 << 20), 9)),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(17 << 20), 9)),
    ],
    ids=["profile", "zTXt", "iTXt"],
)
def test_what_is_too_large_is_no_damage_either(tmp_path: Path, more: bytes) -> None:
    path = write(tmp_path / "p.png", RGB, 8, False, more)
    with pytest.raises(
        DvmsrError, match=r"p\.png has text or a colour profile of more than 16 MiB"
    ):
        read_image(path)
    if vips.installed():
        with pytest.raises(DvmsrError, match=r"p\.png has text or a colour profile of more than"):
            open_rows(path, tmp_path)


def test_pages_of_16_bits_are_told_of_once_and_how_to_keep_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dvmsr.utils.console import warnings_to

    page = Image.fromarray(values(GRAY, 16)[..., 0].astype(np.uint16))
    page.save(tmp_path / "p.tif", save_all=True, append_images=[page, page])
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    with warnings_to(told.append):
        read_picture(Path("p.tif"), lambda header: None)
    assert told == [
        "p.tif: 16 bits per channel are reduced to 8; split it into single pictures to keep them"
    ]
