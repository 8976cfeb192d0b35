from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images.decode import read_image

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Pillow's libtiff is static there")


def damaged(path: Path, compression: str) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(pixels).save(path, compression=compression)
    data = bytearray(path.read_bytes())
    for place in range(3000, len(data) - 3000, 501):
        data[place] ^= 0xFF
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_what_cannot_be_decoded_is_told_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], compression: str
) -> None:
    path = damaged(tmp_path / "p.tif", compression)
    with pytest.raises(DvmsrError, match=f"^{re.escape(str(path))} is damaged"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_what_can_is_told_of_by_its_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """JPEG goes on after damage."""
    path = damaged(tmp_path / "p.tif", "jpeg")
    with pytest.warns(UserWarning, match=r"p\.tif: its data is damaged, and parts of the picture"):
        read_image(path)
    assert capfd.readouterr() == ("", "")
