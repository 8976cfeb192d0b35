from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_model import random_pixels

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.images import decode
from dvmsr.runtime.images.decode import decode_image, depth, read_image
from dvmsr.runtime.images.encode import encode
from dvmsr.runtime.images.formats import FORMATS

pytestmark = pytest.mark.filterwarnings("error")
LOSSLESS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".webp": {"lossless": True, "exact": True},
    ".tif": {},
    ".bmp": {},
}
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture with that EXIF orientation upright (EXIF 2.3, tag 0x0112)."""


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, FORMATS[path.suffix], **options)
    return path


def raw_png(path: Path, width: int, height: int, depth: int, kind: int, rows: bytes) -> Path:
    """A PNG from its parts; Pillow cannot write 16-bit RGB or false sizes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_reads_pixels_exactly(tmp_path: Path, suffix: str) -> None:
    pixels = random_pixels(5, 7)
    path = save(tmp_path / f"p{suffix}", Image.fromarray(pixels), **LOSSLESS[suffix])
    image = read_image(path)
    assert (image.mode, image.info) == ("RGB", {})
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_applies_the_orientation_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    original = Image.fromarray(random_pixels(8, 16))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = LOSSLESS.get(suffix, {"quality": 100, "subsampling": 0})
    read = [
        read_image(save(tmp_path / f"{i}{suffix}", original, exif=tags, **options))
        for i, tags in enumerate([Image.Exif(), exif])
    ]
    turn = TURNS.get(orientation)
    upright = read[0].transpose(turn) if turn is not None else read[0]
    assert read[1].size == upright.size
    assert read[1].tobytes() == upright.tobytes()
    assert ORIENTATION not in read[1].getexif()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_applies_the_orientation_of_a_tiff_once(tmp_path: Path, compression: str) -> None:
    original = Image.fromarray(random_pixels(8, 16))
    path = save(tmp_path / "p.tif", original, compression=compression, tiffinfo={ORIENTATION: 6})
    assert read_image(path).tobytes() == original.transpose(TURNS[6]).tobytes()


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGBA", 4)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_keeps_gray_and_transparency(tmp_path: Path, suffix: str, mode: str, channels: int) -> None:
    """A gray WebP does not exist: it is stored as RGB."""
    original = Image.fromarray(random_pixels(5, 7, channels), mode)
    path = tmp_path / f"p{suffix}"
    path.write_bytes(encode(original, path))
    image = read_image(path)
    if suffix == ".webp":
        assert image.mode == ("RGBA" if "A" in mode else "RGB")
    else:
        assert image.mode == mode
        assert image.tobytes() == original.tobytes()


def test_a_palette_becomes_colours(tmp_path: Path) -> None:
    original = Image.fromarray(random_pixels(5, 7)).quantize(4)
    image = read_image(save(tmp_path / "p.png", original))
    assert image.mode == "RGB"
    assert image.tobytes() == original.convert("RGB").tobytes()


def test_a_transparent_palette_entry_becomes_alpha(tmp_path: Path) -> None:
    original = Image.new("P", (2, 1))
    original.putpalette([10, 20, 30, 40, 50, 60])
    original.putpixel((1, 0), 1)
    image = read_image(save(tmp_path / "p.png", original, transparency=0))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30, 0), (40, 50, 60, 255)]


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (10, 20, 30)), ("L", 10)])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, mode: str, colour: Any) -> None:
    original = Image.new(mode, (2, 1))
    original.putpixel((0, 0), colour)
    image = read_image(save(tmp_path / "p.png", original, transparency=colour))
    assert image.mode == f"{mode}A"
    assert image.getchannel("A").tobytes() == b"\x00\xff"


def test_black_and_white_becomes_gray(tmp_path: Path) -> None:
    original = Image.fromarray(random_pixels(5, 7, 1)).convert("1")
    image = read_image(save(tmp_path / "p.png", original))
    assert image.mode == "L"
    assert image.tobytes() == original.convert("L").tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_reduces_16_bit_gray(tmp_path: Path, suffix: str) -> None:
    wide = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    path = save(tmp_path / f"p{suffix}", Image.fromarray(wide))
    with pytest.warns(UserWarning, match=rf"p\{suffix}: 16 bits per channel are reduced to 8"):
        image = read_image(path)
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), [[0, 0, 1, 1, 128, 255]])


def test_reduces_16_bit_colours(tmp_path: Path) -> None:
    path = raw_png(tmp_path / "p.png", 1, 1, 16, 2, b"\0" + bytes([10, 0, 20, 0, 30, 0]))
    with pytest.warns(UserWarning, match="16 bits per channel"):
        image = read_image(path)
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (10, 20, 30))


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_converts_cmyk(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"p{suffix}", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    with pytest.warns(UserWarning, match="CMYK"):
        image = read_image(path)
    red, green, blue = np.asarray(image)[4, 4]
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_refuses_several_frames(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(random_pixels(4, 4)), Image.fromarray(random_pixels(8, 2)[:4])]
    frames = [frame.resize((4, 4)) for frame in frames]
    path = save(tmp_path / f"p{suffix}", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(DvmsrError, match="holds 2 frames or pages"):
        read_image(path)


def test_reads_the_main_picture_of_a_phone(tmp_path: Path) -> None:
    """Multi-picture JPEG: the others are previews or depth maps."""
    main = Image.new("RGB", (16, 16), "red")
    path = tmp_path / "p.jpg"
    main.save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert read_image(path).size == (16, 16)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_refuses_other_kinds_of_pixels(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "p.tif", Image.new(mode, (3, 3)))
    with pytest.raises(DvmsrError, match=r"p\.tif has"):
        read_image(path)


def test_damaged_exif_data_costs_only_the_orientation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(image: Image.Image) -> Image.Image:
        raise struct.error

    monkeypatch.setattr(decode.ImageOps, "exif_transpose", fail)
    path = save(tmp_path / "p.png", Image.new("RGB", (2, 1), "red"))
    with pytest.warns(UserWarning, match="EXIF"):
        assert read_image(path).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_refuses_truncated_files(tmp_path: Path, suffix: str, kept: float) -> None:
    path = save(tmp_path / f"p{suffix}", Image.fromarray(random_pixels(40, 40)))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DvmsrError, match=rf"p\{suffix} is (damaged|not a)"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "empty"),
        (b"just some text\n", "not a PNG"),
        (b"GIF88a", "not a PNG"),
    ],
)
def test_refuses_what_is_no_image(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(content)
    with pytest.raises(DvmsrError, match=rf"p\.png is {complaint}"):
        read_image(path)


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.png does not exist; check the name"):
        read_image(tmp_path / "no.png")
    with pytest.raises(UsageError, match="is a folder; name a file"):
        read_image(tmp_path)


@pytest.mark.parametrize(("width", "height"), [(10_000, 9_000), (100_000, 100_000)])
def test_refuses_a_decompression_bomb(tmp_path: Path, width: int, height: int) -> None:
    path = raw_png(tmp_path / "p.png", width, height, 8, 2, b"")
    with pytest.raises(DvmsrError, match=r"p\.png claims more than 89 megapixels"):
        read_image(path)


def test_asks_about_the_size_before_decoding(tmp_path: Path) -> None:
    def refuse(height: int, width: int) -> None:
        raise DvmsrError(f"{height}, {width}")

    with pytest.raises(DvmsrError, match=r"^300, 400$"):
        read_image(raw_png(tmp_path / "p.png", 400, 300, 8, 2, b""), refuse)


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_bytes_end_in_one_sentence(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"p{suffix}", Image.fromarray(random_pixels(16, 16)))
    data = path.read_bytes()

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1))
    def flip(changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(data)
        for position, value in changes:
            damaged[position] = value
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_image(path).mode in ("RGB", "L", "RGBA", "LA")
            except DvmsrError as error:
                assert path.name in str(error)

    flip()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DvmsrError, match=r"pipe\.png is no regular file"):
        read_image(tmp_path / "pipe.png")


def test_a_file_in_memory_is_decoded_as_one_on_disk(tmp_path: Path) -> None:
    path = save(tmp_path / "p.jpg", Image.fromarray(random_pixels(9, 7)))
    assert decode_image(io.BytesIO(path.read_bytes()), "it").tobytes() == read_image(path).tobytes()
    with pytest.raises(DvmsrError, match=r"it is damaged or .*; get a complete copy"):
        decode_image(io.BytesIO(path.read_bytes()[:-100]), "it")
    with pytest.raises(DvmsrError, match="it is empty"):
        decode_image(io.BytesIO(b""), "it")


@pytest.mark.parametrize("hidden", [0, 1])
def test_a_transparent_colour_of_one_bit_is_transparent(tmp_path: Path, hidden: int) -> None:
    bits = Image.fromarray(random_pixels(4, 6, 1) > 127)
    path = save(tmp_path / "a.png", bits, transparency=hidden)
    image = read_image(path)
    assert image.mode == "LA"
    assert np.array_equal(np.asarray(image.getchannel("A")) == 0, np.asarray(bits) == hidden)


def test_16_bit_planes_are_refused_not_misread(tmp_path: Path) -> None:
    values = random_pixels(4, 6).astype(np.uint16) * 257
    planes = values.transpose(2, 0, 1).tobytes()
    tags = [(256, 3, 1, 6), (257, 3, 1, 4), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 3, 206), (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 3, 218), (284, 3, 1, 2)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    starts = [230 + 48 * number for number in range(3)]
    arrays = struct.pack("<3H3I3I", 16, 16, 16, *starts, 48, 48, 48)
    path = tmp_path / "a.tif"
    path.write_bytes(head.ljust(200, b"\0") + arrays + planes)
    with Image.open(path) as image:
        assert depth(image) == 16
    with pytest.raises(DvmsrError, match="one band after the other"):
        read_image(path)


def test_a_kind_of_tiff_that_is_not_read_is_called_one(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(random_pixels(4, 6)))
    eight, five = (bits.to_bytes(2, "little") * 3 for bits in (8, 5))
    path.write_bytes(path.read_bytes().replace(eight, five))
    with pytest.raises(DvmsrError, match="or TIFF of a kind"):
        read_image(path)
