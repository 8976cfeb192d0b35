from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiffs import DOUBLE, SHORT, write_tiff

from dvmsr.runtime.images import tiff
from dvmsr.runtime.images.tiff import Damaged, Tiff, Value

vips = pytest.importorskip("pyvips", reason="pyvips, which writes BigTIFF, is not installed")
PIXELS = np.arange(60).reshape(4, 5, 3)
ARTIST, PIXEL_SCALE = 315, 33550


def sample(folder: Path, kind: str) -> Path:
    path = folder / "p.tif"
    if kind == "big":
        image = vips.Image.new_from_array(PIXELS.astype(np.uint8))
        image.tiffsave(str(path), bigtiff=True)
        return path
    more = {PIXEL_SCALE: (DOUBLE, [1.5, 2.5, 0]), 34735: (SHORT, [1, 2])}
    return write_tiff(path, PIXELS, 8, 2, order="<" if kind == "little" else ">", more=more)


@pytest.mark.parametrize("kind", ["little", "big-endian", "big"])
def test_tags_are_added_and_pixels_stay(tmp_path: Path, kind: str) -> None:
    path = sample(tmp_path, kind)
    exif = {
        36867: Value(2, b"2026:05:01 12:00:00\0"),
        34855: Value.of(tiff.SHORT, 400),
        tiff.INTEROPERABILITY: Value(tiff.LONG, b"", {1: Value(2, b"R98\0")}),
    }
    added = {
        ARTIST: Value(2, b"Zo\xc3\xab\0"),
        34264: Value.of(tiff.DOUBLE, *range(16)),
        282: Value.of(tiff.RATIONAL, 300, 1),
        283: None,
        tiff.EXIF: Value(tiff.LONG, b"", exif),
    }
    before = Tiff(io.BytesIO(path.read_bytes())).directory()
    with path.open("r+b") as file:
        Tiff(file).change(added)
    with path.open("rb") as file:
        after = Tiff(file).directory()
    assert 283 not in after
    assert {tag: after[tag] for tag in added if added[tag]} == {k: v for k, v in added.items() if v}
    kept = set(before) - set(added) - {273}
    assert {tag: after[tag] for tag in kept} == {tag: before[tag] for tag in kept}
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
        assert image.getexif().get_ifd(tiff.EXIF)[34855] == 400
        assert image.getexif().get_ifd(tiff.EXIF)[36867] == "2026:05:01 12:00:00"
        assert image.tag_v2[282] == 300
        assert image.tag_v2[34264] == tuple(range(16))
    read = vips.Image.new_from_file(str(path))
    np.testing.assert_array_equal(read.numpy(), PIXELS)


@pytest.mark.parametrize("kind", ["little", "big-endian"])
def test_numbers_are_those_of_the_file(tmp_path: Path, kind: str) -> None:
    with sample(tmp_path, kind).open("rb") as file:
        tags = Tiff(file).directory(lambda tag: tag > 1000)
    assert {tag: value.numbers for tag, value in tags.items()} == {
        PIXEL_SCALE: (1.5, 2.5, 0),
        34735: (1, 2),
    }
    exif = tiff.as_exif(tags)
    assert Tiff(io.BytesIO(exif)).directory() == tags


@pytest.mark.parametrize("length", [*range(0, 40, 3), 150, 200, 250])
def test_a_file_that_is_cut_off(tmp_path: Path, length: int) -> None:
    data = sample(tmp_path, "little").read_bytes()
    whole = Tiff(io.BytesIO(data)).directory()
    try:
        found = Tiff(io.BytesIO(data[:length])).directory()
    except Damaged:
        return
    assert found.items() <= whole.items()


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    values = {tiff.EXIF: Value.of(tiff.LONG, 8)}
    data = bytearray(tiff.as_exif(values))
    found = Tiff(io.BytesIO(data)).directory()
    assert set(found) == {tiff.EXIF}
    data[-4:] = (8).to_bytes(4, "little")
    with pytest.raises(Damaged):
        list(Tiff(io.BytesIO(data)).pages())


def test_a_value_that_claims_too_much_is_left_out() -> None:
    data = bytearray(tiff.as_exif({ARTIST: Value(2, b"name\0"), 305: Value(2, b"soft\0")}))
    data[14:18] = (1 << 31).to_bytes(4, "little")
    assert len(Tiff(io.BytesIO(data)).directory()) == 1


def test_values_together_are_no_more_than_the_file() -> None:
    """However many tags point to one place."""
    data = bytearray(b"II*\0" + (8).to_bytes(4, "little") + (500).to_bytes(2, "little"))
    for tag in range(40_000, 40_500):
        data += struct.pack("<HHII", tag, tiff.UNDEFINED, 60_000, 8)
    data += bytes(60_000)
    values = Tiff(io.BytesIO(data)).directory()
    assert sum(len(value.data) for value in values.values()) <= len(data)
