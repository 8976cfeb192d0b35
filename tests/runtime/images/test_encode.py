from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dvmsr.runtime.images.decode import read_image
from dvmsr.runtime.images.encode import encode
from dvmsr.runtime.images.formats import FORMATS

pytestmark = pytest.mark.filterwarnings("error")


def profile(space: str = "sRGB") -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()  # type: ignore[arg-type]


GRAY_PROFILE = profile()[:16] + b"GRAY" + profile()[20:]


@pytest.mark.parametrize("suffix", FORMATS)
def test_writes_what_its_name_says(tmp_path: Path, suffix: str) -> None:
    """Lossless formats exactly, the others to within 40 dB on a smooth picture, GIF, whose 256
    colours stand for 1,536, to within 33 dB."""
    y, x = np.mgrid[:32, :48]
    pixels = np.stack([5 * x, 8 * y, 255 - 5 * x], -1).astype(np.uint8)
    path = tmp_path / f"p{suffix.upper()}"
    path.write_bytes(encode(Image.fromarray(pixels), path))
    with Image.open(path) as image:
        assert image.format == FORMATS[suffix]
        error = np.asarray(image.convert("RGB")).astype(float) - pixels
    least = {"JPEG": 40, "WEBP": 40, "AVIF": 40, "GIF": 33}.get(FORMATS[suffix], 140)
    assert np.mean(error**2) < 255**2 * 10 ** (-least / 10)


def test_jpeg_keeps_the_colours_resolution() -> None:
    with Image.open(io.BytesIO(encode(Image.new("RGB", (16, 16)), Path("p.jpg")))) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_keeps_the_colour_profile(tmp_path: Path, suffix: str, mode: str) -> None:
    stored = profile() if mode == "RGB" else GRAY_PROFILE
    image = Image.new(mode, (8, 8))
    image.info["icc_profile"] = stored
    path = tmp_path / f"p{suffix}"
    if (suffix, mode) == (".webp", "L"):
        path.write_bytes(encode(image, path))  # sRGB's grays need no profile
        assert read_image(path).info == {}
    else:
        path.write_bytes(encode(image, path))
        assert read_image(path).info == {"icc_profile": stored}


def test_says_what_a_format_cannot_hold() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.info["icc_profile"] = profile()
    with pytest.warns(UserWarning) as caught:
        data = encode(image, Path("p.bmp"))
    assert [str(w.message).split(": ")[1] for w in caught] == [
        "BMP holds no transparency, which becomes white"
    ]
    with Image.open(io.BytesIO(data)) as written:
        assert written.getpixel((0, 0)) == (255, 255, 255)


def test_opaque_alpha_is_no_loss() -> None:
    assert encode(Image.new("LA", (2, 1), (10, 255)), Path("p.jpg"))
