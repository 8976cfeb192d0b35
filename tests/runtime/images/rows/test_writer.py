from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from small_model import random_pixels

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images.metadata import Metadata
from dvmsr.runtime.images.rows import writer
from dvmsr.runtime.images.rows.writer import writing_rows

pytest.importorskip("pyvips", reason="needs the extra large")

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


@pytest.mark.parametrize("mode", BANDS)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_writes_every_pixel(tmp_path: Path, format: str, mode: str) -> None:
    pixels = random_pixels(29, 31, BANDS[mode]).reshape(29, 31, -1)
    path = tmp_path / "p"
    with writing_rows(path, format, "p", 29, 31, mode) as out:
        for start in range(0, 29, 4):
            out.write(pixels[start : start + 4])
    with Image.open(path) as image:
        assert (image.format, image.mode) == (format, mode)
        assert image.tobytes() == pixels.tobytes()
        assert not {"icc_profile", "exif"} & set(image.info)


def test_writes_jpeg_without_halving_colours(tmp_path: Path) -> None:
    y, x = np.mgrid[:40, :48]
    pixels = np.stack([5 * x, 6 * y, 255 - 5 * x], -1).astype(np.uint8)
    with writing_rows(tmp_path / "p", "JPEG", "p", 40, 48, "RGB", PROFILE) as out:
        out.write(pixels)
    with Image.open(tmp_path / "p") as image:
        assert image.info["icc_profile"] == PROFILE
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
        assert np.mean((np.asarray(image, float) - pixels) ** 2) < 255**2 * 1e-4


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_keeps_the_profile(tmp_path: Path, format: str) -> None:
    with writing_rows(tmp_path / "p", format, "p", 2, 3, "RGB", PROFILE) as out:
        out.write(random_pixels(2, 3))
    with Image.open(tmp_path / "p") as image:
        assert image.info["icc_profile"] == PROFILE


def test_a_large_tiff_has_long_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_CLASSIC_TIFF", 0)
    with writing_rows(tmp_path / "p", "TIFF", "p", 2, 3, "RGB") as out:
        out.write(random_pixels(2, 3))
    assert (tmp_path / "p").read_bytes()[2] == 43
    with Image.open(tmp_path / "p") as image:
        assert image.tobytes() == random_pixels(2, 3).tobytes()


def test_an_error_in_the_block_passes(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError, match="mine"),
        writing_rows(tmp_path / "p", "PNG", "p", 9, 9, "L") as out,
    ):
        out.write(random_pixels(3, 9, 1))
        raise KeyError("mine")


def test_rows_that_are_missing_are_told(tmp_path: Path) -> None:
    with (
        pytest.raises(DvmsrError, match="p cannot be written"),
        writing_rows(tmp_path / "p", "PNG", "p", 9, 999, "L") as out,
    ):
        out.write(random_pixels(3, 999, 1))


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
def test_a_full_disk_is_told(tmp_path: Path, format: str) -> None:
    """Played by a limit of 100,000 bytes a file."""
    code = (
        "import resource, signal, sys\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from dvmsr.errors import DvmsrError\n"
        "from dvmsr.runtime.images.rows.writer import writing_rows\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))\n"
        "noise = np.random.default_rng(0).integers(0, 256, (50, 999, 3), np.uint8)\n"
        "try:\n"
        "    with writing_rows(Path(sys.argv[1]), sys.argv[2], 'p.x', 5000, 999, 'RGB') as out:\n"
        "        for _ in range(100): out.write(noise)\n"
        "except DvmsrError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "p"), format]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.startswith("p.x cannot be written")
    assert result.stdout.endswith("; make room or choose another place\n")


def test_a_jpeg_tells_its_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    told = Metadata(dpi=(300, 300))
    with writing_rows(path, "JPEG", "a", 4, 6, "RGB", metadata=told) as out:
        out.write(random_pixels(4, 6))
    with Image.open(path) as image:
        assert image.info["dpi"] == (300, 300)
