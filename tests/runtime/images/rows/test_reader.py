"""What is read by rows is what Pillow reads."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from processes import LIMIT
from small_model import random_pixels

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images.decode import read_image
from dvmsr.runtime.images.rows.reader import open_rows, reads

vips = pytest.importorskip("pyvips", reason="needs the extra large")

TOLERANCES = {".jpg": 2}
HEIGHT, WIDTH = 37, 53
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(mode: str) -> Image.Image:
    """Smooth enough for JPEG, with all alphas."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    bands = [4 * x, 6 * y, 255 - 4 * x, 3 * y + 2 * x]
    if mode in ("P", "1"):
        return picture("RGB").quantize(9) if mode == "P" else picture("L").convert("1")
    count = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.stack(bands[-count:], -1).astype(np.uint8)
    return Image.frombytes(mode, (WIDTH, HEIGHT), pixels.tobytes())


def pillow(mode: str, **options: Any) -> Callable[[Path], None]:
    return lambda path: picture(mode).save(path, **options)


def libvips(saver: str, channels: int, dtype: type = np.uint8, **options: Any) -> Any:
    def save(path: Path) -> None:
        pixels = random_pixels(HEIGHT, WIDTH, channels).astype(dtype)
        if dtype == np.uint16:
            pixels = pixels * 257 - (pixels > 128)
        deep = "rgb16" if channels > 2 else "grey16"
        shallow = "srgb" if channels > 2 else "b-w"
        image = vips.Image.new_from_array(pixels).copy(
            interpretation=deep if dtype == np.uint16 else shallow
        )
        getattr(image, saver)(str(path), **options)

    return save


CASES: dict[str, Callable[[Path], None]] = {
    **{f"{mode}.png": pillow(mode) for mode in ("RGB", "L", "LA", "RGBA", "P", "1")},
    "transparent-palette.png": pillow("P", transparency=3),
    "transparent-gray.png": pillow("L", transparency=100),
    "transparent-colour.png": pillow("RGB", transparency=(0, 0, 255)),
    "profile.png": pillow("RGB", icc_profile=PROFILE),
    "noise.png": libvips("pngsave", 3),
    "interlaced.png": libvips("pngsave", 3, interlace=True),
    "gray-16-bit.png": libvips("pngsave", 1, np.uint16),
    "gray-alpha-16-bit.png": libvips("pngsave", 2, np.uint16),
    "colour-16-bit.png": libvips("pngsave", 3, np.uint16),
    **{f"{mode}.tif": pillow(mode) for mode in ("RGB", "L", "LA", "RGBA", "P", "1", "CMYK")},
    "lzw.tif": pillow("RGB", compression="tiff_lzw"),
    "one-strip.tif": pillow("RGB", compression="tiff_deflate", tiffinfo={278: HEIGHT}),
    "many-strips.tif": pillow("RGB", compression="tiff_lzw", tiffinfo={278: 3}),
    "rgbx.tif": pillow("RGBX"),
    "profile.tif": pillow("RGB", icc_profile=PROFILE),
    "tiles.tif": libvips("tiffsave", 3, tile=True, tile_width=16, tile_height=16),
    "big.tif": libvips("tiffsave", 3, bigtiff=True),
    "big-tiles.tif": libvips("tiffsave", 1, bigtiff=True, tile=True, compression="deflate"),
    "premultiplied.tif": libvips("tiffsave", 4, premultiply=True),
    "gray-16-bit.tif": libvips("tiffsave", 1, np.uint16),
    "colour-16-bit.tif": libvips("tiffsave", 3, np.uint16),
    "RGB.jpg": pillow("RGB", quality=95),
    "halved-colours.jpg": pillow("RGB", quality=95, subsampling=2),
    "L.jpg": pillow("L"),
    "CMYK.jpg": pillow("CMYK", quality=95),
    "progressive.jpg": pillow("RGB", progressive=True),
    "profile.jpg": pillow("RGB", icc_profile=PROFILE),
    "RGB.webp": pillow("RGB", lossless=True),
    "RGBA.webp": pillow("RGBA", lossless=True, exact=True),
}


def assert_same(path: Path, tolerance: int = 0) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = read_image(path)
        reader = open_rows(path, path.parent)
    assert (reader.height, reader.width) == (whole.height, whole.width)
    assert reader.mode == {"gray-alpha-16-bit.png": "LA"}.get(path.name, whole.mode)
    assert reader.profile == whole.info.get("icc_profile")
    deep = "16-bit" in path.name
    assert reader.dtype == (np.uint16 if deep else np.uint8)
    for rows in (1, 7, 100):
        strips = list(reader.strips(rows))
        assert {len(strip) for strip in strips[:-1]} <= {rows}
        pixels = np.concatenate(strips)
        assert pixels.dtype == reader.dtype
        assert pixels.shape == (whole.height, whole.width, len(reader.mode))
        if deep and whole.mode == "L":  # Pillow rounds gray, and reads the high byte of colours
            pixels = (pixels.astype(int) + 128) // 257
        elif deep:
            pixels = pixels >> 8
        if whole.mode == "RGBA" and reader.mode == "LA":
            pixels = pixels[..., [0, 0, 0, 1]]
        expected = np.asarray(whole, int).reshape(pixels.shape)
        assert np.abs(pixels - expected).max() <= tolerance


@pytest.mark.parametrize("name", CASES)
def test_reads_what_pillow_reads(tmp_path: Path, name: str) -> None:
    """JPEG to within two levels: decoders may differ in rounding, as divisions by alpha do. Gray
    with alpha of 16 bits stays gray, which Pillow makes coloured."""
    CASES[name](tmp_path / name)
    assert reads(tmp_path / name)
    assert_same(
        tmp_path / name, tolerance=TOLERANCES.get(name[-4:], int(name == "premultiplied.tif"))
    )


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_what_is_stored_turned(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 95}, ".webp": {"lossless": True}}.get(suffix, {})
    picture("RGB").save(tmp_path / f"p{suffix}", exif=exif, **options)
    assert_same(tmp_path / f"p{suffix}", tolerance=TOLERANCES.get(suffix, 0))
    assert [path.name for path in tmp_path.iterdir()] == [f"p{suffix}"]


def test_no_space_to_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("RGB").save(tmp_path / "p.png", exif=exif)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 100}))
    with pytest.raises(DvmsrError, match=r"p\.png is stored turned, and turning it needs"):
        list(open_rows(tmp_path / "p.png", tmp_path).strips(8))


@pytest.mark.parametrize("name", ["noise.png", "lzw.tif", "tiles.tif", "RGB.jpg", "RGB.webp"])
@pytest.mark.parametrize("part", [0.1, 0.9])
def test_says_that_a_file_is_cut_off(tmp_path: Path, name: str, part: float) -> None:
    path = tmp_path / name
    CASES[name](path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(DvmsrError, match=r"is (damaged or .*; get a complete copy|not a .* image)"):
        list(open_rows(path, tmp_path).strips(8))


def test_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    picture("RGB").save(path, save_all=True, append_images=[picture("L")])
    with pytest.raises(DvmsrError, match="holds 2 frames or pages; split it"):
        open_rows(path, tmp_path)
    Image.new("F", (3, 3)).save(path)
    with pytest.raises(DvmsrError, match=r"has 32-bit floating-point gray samples, .*; convert it"):
        open_rows(path, tmp_path)
    picture("RGB").save(tmp_path / "p.bmp")
    assert not reads(tmp_path / "p.bmp")
    with pytest.raises(DvmsrError, match="cannot be read by rows; convert it to PNG, JPEG, WebP"):
        open_rows(tmp_path / "p.bmp", tmp_path)


@pytest.mark.parametrize(
    ("name", "held"),
    [("RGB.png", False), ("interlaced.png", True), ("RGB.jpg", False), ("progressive.jpg", True)],
)
def test_tells_what_its_decoder_holds(tmp_path: Path, name: str, held: bool) -> None:
    CASES[name](tmp_path / name)
    assert open_rows(tmp_path / name, tmp_path).held == 2 * 3 * WIDTH * HEIGHT * held


def test_cmyk_of_16_bits_becomes_rgb_of_16_bits(tmp_path: Path) -> None:
    inks = random_pixels(5, 7, 4).astype(np.uint16) * 257
    path = tmp_path / "a.tif"
    pyvips = pytest.importorskip("pyvips")
    pyvips.Image.new_from_array(inks).copy(interpretation="cmyk").tiffsave(str(path))
    with pytest.warns(UserWarning, match="approximate"):
        reader = open_rows(path, tmp_path)
    light = 1 - inks / 65535
    (rows,) = reader.strips(5)
    assert rows.dtype == np.uint16
    assert np.abs(rows - light[..., :3] * light[..., 3:] * 65535).max() <= 1


def test_orientation_in_xmp_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    Image.fromarray(random_pixels(5, 7)).save(path, pnginfo=chunks)
    assert_same(path)


def test_a_cmyk_profile_that_is_damaged_is_left_out(tmp_path: Path) -> None:
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    broken = made[:16] + b"CMYK" + made[20:200]
    path = tmp_path / "a.jpg"
    Image.fromarray(random_pixels(5, 7)).convert("CMYK").save(path, icc_profile=broken)
    with pytest.warns(UserWarning, match="damaged and left out"):
        reader = open_rows(path, tmp_path)
    (rows,) = reader.strips(5)
    with Image.open(path) as image:
        assert np.array_equal(rows, np.asarray(image.convert("RGB")))


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be cut there")
@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.tif", "p.webp"])
def test_a_file_that_becomes_shorter_meanwhile_is_no_end_of_the_process(
    tmp_path: Path, name: str
) -> None:
    """A mapped file would end it by SIGBUS."""
    path = tmp_path / name
    pixels = np.random.default_rng(0).integers(0, 256, (900, 600, 3), np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from dvmsr.errors import DvmsrError\n"
        "from dvmsr.runtime.images.rows.reader import open_rows\n"
        "path = Path(sys.argv[1])\n"
        "strips = open_rows(path, path.parent).strips(8)\n"
        "next(strips)\n"
        "os.truncate(path, 30_000)\n"
        "try:\n    rows = sum(len(strip) for strip in strips)\n"
        "except DvmsrError as error:\n    print(error)\n"
        "else:\n    print(rows, 'rows')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=LIMIT
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    damaged = f"{path} is damaged or truncated; get a complete copy of it\n"
    assert ran.stdout == ("892 rows\n" if name == "p.webp" else damaged)  # read at once
