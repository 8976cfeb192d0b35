"""What a file says beside its pixels: the same after enlarging, but for sizes and resolution."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from PIL.ExifTags import IFD
from small_model import random_pixels

from dvmsr.runtime.images.jpeg import iptc_marker
from dvmsr.runtime.images.metadata import Metadata
from dvmsr.runtime.images.picture import Picture, encode_picture, read_picture

WIDTH, HEIGHT, SCALE = 24, 16, 3
SUFFIXES = (".jpg", ".png", ".webp", ".tif", ".avif")
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" '
    b'tiff:ImageWidth="24" exif:PixelYDimension="16"><dc:title>Sea</dc:title>'
    b"<tiff:ImageLength>16</tiff:ImageLength><xmp:Thumbnails><rdf:Alt>/9j/4</rdf:Alt>"
    b"</xmp:Thumbnails></rdf:Description></x:xmpmeta>"
)
ZOE = "Zoë".encode().decode("latin-1")
"""As Pillow reads UTF-8."""
MAKER, MODEL, ORIENTATION, ARTIST, X_RESOLUTION = 271, 272, 274, 315, 282
TAKEN, ISO, MAKER_NOTE, USER_COMMENT, PIXEL_X, PIXEL_Y = 36867, 34855, 37500, 37510, 40962, 40963


def exif(orientation: int = 6) -> bytes:
    data = Image.Exif()
    data[MAKER], data[MODEL], data[ARTIST] = "Leica", "M11", "Zoë".encode()
    data[ORIENTATION] = orientation
    data[X_RESOLUTION], data[283], data[296] = 300.0, 300.0, 2
    data[IFD.Exif] = {
        TAKEN: "2026:05:01 12:00:00",
        ISO: 400,
        MAKER_NOTE: b"LEICA\0\1\2",
        USER_COMMENT: b"ASCII\0\0\0hello",
        PIXEL_X: WIDTH,
        PIXEL_Y: HEIGHT,
    }
    data[IFD.GPSInfo] = {1: "N", 2: (47.0, 22.0, 30.0)}
    return data.tobytes()


def enlarged(source: Path, target: Path, quality: int | None = None) -> Image.Image:
    """What nearest neighbours make of it, with the warnings that `dvmsr-infer` would give."""
    picture = read_picture(source, lambda header: None)
    larger = picture.mapped(nearest)
    target.write_bytes(encode_picture(larger, target, SCALE, quality))
    image = Image.open(target)
    image.load()
    return image


def nearest(frame: Image.Image) -> Image.Image:
    result = frame.resize((SCALE * frame.width, SCALE * frame.height), Image.Resampling.NEAREST)
    result.info = dict(frame.info)
    return result


def save(path: Path, **options: Any) -> Path:
    if path.suffix == ".png" and "xmp" in options:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
    if path.suffix == ".tif" and "xmp" in options:
        options["tiffinfo"] = {700: options.pop("xmp")}
    Image.fromarray(random_pixels(HEIGHT, WIDTH)).save(path, **options)
    return path


@pytest.fixture(autouse=True)
def _no_warning_unless_expected() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_exif_data(tmp_path: Path, source: str, target: str) -> None:
    """Turned by a quarter, so that width and height change places."""
    path = save(tmp_path / f"p{source}", exif=exif())
    with Image.open(path) as before:
        artist = before.getexif()[ARTIST]  # Pillow may write less
    assert artist == ZOE or source in (".tif", ".avif")
    image = enlarged(path, tmp_path / f"o{target}")
    assert image.size == (SCALE * HEIGHT, SCALE * WIDTH)
    data = Image.Image.getexif(image)
    assert ORIENTATION not in data or data[ORIENTATION] == 1
    assert [data[tag] for tag in (MAKER, MODEL, ARTIST)] == ["Leica", "M11", artist]
    assert data[X_RESOLUTION] == pytest.approx(SCALE * 300)
    photo = data.get_ifd(IFD.Exif)
    assert (photo[TAKEN], photo[ISO]) == ("2026:05:01 12:00:00", 400)
    assert photo[USER_COMMENT] == b"ASCII\0\0\0hello"
    if source != ".tif":  # Pillow does not write it there
        assert photo[MAKER_NOTE] == b"LEICA\0\1\2"
    assert (photo[PIXEL_X], photo[PIXEL_Y]) == image.size
    assert data.get_ifd(IFD.GPSInfo)[2] == (47.0, 22.0, 30.0)


def test_the_thumbnail_is_dropped(tmp_path: Path) -> None:
    """It would show the small picture; IFD1 holds it (EXIF 2.3, section 4.5.5)."""
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "JPEG")
    jpeg = small.getvalue()
    first = struct.pack("<2sHIHHHI4sI", b"II", 42, 8, 1, 271, 2, 4, b"abc\0", 26)
    second = struct.pack("<H", 3)
    second += struct.pack("<HHIHH", 259, 3, 1, 6, 0)
    second += struct.pack("<HHII", 513, 4, 1, 26 + 2 + 36 + 4)
    second += struct.pack("<HHII", 514, 4, 1, len(jpeg)) + bytes(4)
    data = b"Exif\0\0" + first + second + jpeg
    source = save(tmp_path / "p.jpg", exif=data)
    with Image.open(source) as image:
        assert image.getexif().get_ifd(IFD.IFD1)[514] == len(jpeg)
    image = enlarged(source, tmp_path / "o.jpg")
    assert image.getexif()[MAKER] == "abc"
    assert not image.getexif().get_ifd(IFD.IFD1)
    assert (tmp_path / "o.jpg").read_bytes().count(b"\xff\xd8\xff") == 1


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_xmp(tmp_path: Path, source: str, target: str) -> None:
    image = enlarged(save(tmp_path / f"p{source}", xmp=XMP), tmp_path / f"o{target}")
    xmp = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
    width, height = image.size
    assert b"<dc:title>Sea</dc:title>" in xmp
    assert b'tiff:ImageWidth="%d"' % width in xmp
    assert b'exif:PixelYDimension="%d"' % height in xmp
    assert b"<tiff:ImageLength>%d<" % height in xmp
    assert b"Orientation" not in xmp
    assert b"Thumbnails" not in xmp


@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".bmp"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".bmp"])
def test_is_printed_as_large_as_before(tmp_path: Path, source: str, target: str) -> None:
    """To half a unit of what the formats count: dots per inch, or per metre."""
    image = enlarged(save(tmp_path / f"p{source}", dpi=(150, 100)), tmp_path / f"o{target}")
    assert image.info["dpi"] == pytest.approx((SCALE * 150, SCALE * 100), abs=0.6)


@pytest.mark.parametrize("target", [".webp", ".avif"])
def test_formats_without_resolution_tell_it_in_exif_data(tmp_path: Path, target: str) -> None:
    image = enlarged(save(tmp_path / "p.png", dpi=(100, 100)), tmp_path / f"o{target}")
    data = image.getexif()
    assert (data[X_RESOLUTION], data[296]) == (pytest.approx(SCALE * 100, abs=0.1), 2)


@pytest.mark.parametrize("target", [".jpg", ".tif"])
@pytest.mark.parametrize("source", [".jpg", ".tif"])
def test_iptc_data(tmp_path: Path, source: str, target: str) -> None:
    iptc = b"\x1c\x02\x05\x00\x03Sea"
    options = {"extra": iptc_marker(iptc)} if source == ".jpg" else {"tiffinfo": {33723: iptc}}
    image = enlarged(save(tmp_path / f"p{source}", **options), tmp_path / f"o{target}")
    if target == ".jpg":
        assert image.info["photoshop"][0x0404].rstrip(b"\0") == iptc
    else:
        assert image.tag_v2[33723] == iptc  # type: ignore[attr-defined]


def test_comments_and_text(tmp_path: Path) -> None:
    image = enlarged(save(tmp_path / "p.jpg", comment=b"by hand"), tmp_path / "o.jpg")
    assert image.info["comment"] == b"by hand"
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "Sea")
    text.add_itxt("Description", "Mer agitée")
    image = enlarged(save(tmp_path / "p.png", pnginfo=text), tmp_path / "o.png")
    assert image.text == {"Title": "Sea", "Description": "Mer agitée"}  # type: ignore[attr-defined]


def test_what_a_png_says_of_its_colours(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"gAMA", struct.pack(">I", 100_000))
    source = save(tmp_path / "p.png", pnginfo=chunks)
    assert enlarged(source, tmp_path / "o.png").info["gamma"] == 1
    with pytest.warns(UserWarning, match=r"o\.jpg: JPEG cannot hold its gamma, left out"):
        enlarged(source, tmp_path / "o.jpg")


def test_says_what_is_left_out(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "Sea")
    source = save(tmp_path / "p.png", exif=exif(), dpi=(100, 100), pnginfo=text)
    with pytest.warns(UserWarning, match=r"o\.gif: GIF cannot hold EXIF data, the resolution, its"):
        enlarged(source, tmp_path / "o.gif")


def test_a_plain_picture_gains_nothing(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".webp", ".avif"):
        image = enlarged(save(tmp_path / f"p{suffix}"), tmp_path / f"o{suffix}")
        assert not {"exif", "xmp", "dpi", "comment", "icc_profile"} & set(image.info)


@pytest.mark.parametrize("options", [{"quality": 30}, {"quality": 97, "progressive": True}])
@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_a_jpeg_is_compressed_as_before(
    tmp_path: Path, options: dict[str, Any], sampling: int
) -> None:
    source = save(tmp_path / "p.jpg", subsampling=sampling, **options)
    before: Any = Image.open(source)
    after: Any = enlarged(source, tmp_path / "o.jpg")
    assert after.quantization == before.quantization
    assert [layer[1:3] for layer in after.layer] == [layer[1:3] for layer in before.layer]
    assert after.info.get("progressive") == before.info.get("progressive")


@pytest.mark.parametrize("quality", [10, 75, 92])
def test_unless_told_otherwise(tmp_path: Path, quality: int) -> None:
    source = save(tmp_path / "p.jpg", quality=50, subsampling=2)
    after: Any = enlarged(source, tmp_path / "o.jpg", quality)
    expected = Image.open(save(tmp_path / "e.jpg", quality=quality))
    assert after.quantization == expected.quantization  # type: ignore[attr-defined]
    large = enlarged(save(tmp_path / "p.webp", lossless=True), tmp_path / "o.webp", 20)
    assert len(large.tobytes()) and b"VP8L" not in (tmp_path / "o.webp").read_bytes()[:30]


@pytest.mark.parametrize("quality", [1, 25, 50, 75, 90, 100])
def test_knows_the_quality_of_a_jpeg(tmp_path: Path, quality: int) -> None:
    source = save(tmp_path / "p.jpg", quality=quality)
    jpeg = read_picture(source, lambda header: None).metadata.jpeg
    assert jpeg is not None and jpeg.quality == quality


def test_a_gray_jpeg(tmp_path: Path) -> None:
    Image.fromarray(random_pixels(8, 8, 1)).save(tmp_path / "p.jpg", quality=40)
    after = enlarged(tmp_path / "p.jpg", tmp_path / "o.jpg")
    assert after.mode == "L"
    assert after.quantization == Image.open(tmp_path / "p.jpg").quantization  # type: ignore[attr-defined]


def test_a_lossless_webp_stays_so(tmp_path: Path) -> None:
    source = save(tmp_path / "p.webp", lossless=True)
    pixels = random_pixels(HEIGHT, WIDTH).repeat(SCALE, 0).repeat(SCALE, 1)
    np.testing.assert_array_equal(np.asarray(enlarged(source, tmp_path / "o.webp")), pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_damaged_exif_data_is_told_and_left_out(tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / f"p{suffix}", exif=exif())
    data = bytearray(source.read_bytes())
    place = data.index(b"Leica\0")
    tags = data.rindex(struct.pack("<H" if b"II*\0" in data else ">H", MAKER), 0, place)
    data[tags + 2 : tags + 12] = b"\xff" * 10
    source.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            image = enlarged(source, tmp_path / f"o{suffix}")
        except Exception as error:  # a PNG's checksum, a TIFF's header
            assert "p" + suffix in str(error)
        else:
            assert image.size[0] % SCALE == 0
    assert all("p" in str(warning.message) for warning in caught)


def test_too_much_for_a_jpeg(tmp_path: Path) -> None:
    """A segment of a JPEG holds 65,533 bytes."""
    data = Image.Exif()
    data[270] = "x" * 70_000
    source = save(tmp_path / "p.png", exif=data)
    with pytest.warns(UserWarning, match=r"o\.jpg: JPEG cannot hold EXIF data"):
        assert not enlarged(source, tmp_path / "o.jpg").getexif()


def test_frames_alone_are_a_picture() -> None:
    picture = Picture((Image.new("RGB", (2, 1)),))
    assert Image.open(io.BytesIO(encode_picture(picture, Path("p.png"), 2))).size == (2, 1)


def test_a_tiff_without_resolution_gets_none(tmp_path: Path) -> None:
    assert "dpi" not in enlarged(save(tmp_path / "a.tif"), tmp_path / "b.png").info


def test_exif_data_that_is_no_tiff_is_left_out_of_a_tiff(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", exif=exif(1)[:8] + b"\0t" + exif(1)[10:])
    with pytest.warns(UserWarning, match="EXIF data is damaged"):
        assert enlarged(path, tmp_path / "b.tif").format == "TIFF"


def test_a_resolution_beyond_jfif_is_told_in_exif_data(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", dpi=(60_000, 60_000))
    result = enlarged(path, tmp_path / "b.jpg")
    assert result.info.get("jfif_density", (1, 1)) == (1, 1)
    assert result.getexif()[282] == pytest.approx(60_000 * SCALE, rel=1e-3)


@pytest.mark.parametrize(
    "filling",
    [b" " * 3_000_000, b"<xmp:Thumbnails " * 200_000, b"\n tiff:Orientation=" * 100_000],
    ids=["spaces", "thumbnails", "orientations"],
)
def test_long_xmp_takes_no_time(filling: bytes) -> None:
    """Time that grows with the square of its length would be hours."""
    head, end = b'<x:xmpmeta tiff:ImageWidth="24">', filling + b"</x:xmpmeta>"
    xmp = head + b"<xmp:Thumbnails><a/></xmp:Thumbnails>" + end
    larger = Metadata(xmp=xmp).enlarged(3, (72, 48))
    assert larger.xmp == head.replace(b"24", b"72") + end


def test_no_resolution_is_made_up_of_exif_data_without_one(tmp_path: Path) -> None:
    data = Image.Exif()
    data[MAKER] = "Leica"
    path = save(tmp_path / "p.jpg", exif=data.tobytes())
    assert Image.open(path).info["dpi"] == (72, 72)
    assert read_picture(path, lambda header: None).metadata.dpi is None
