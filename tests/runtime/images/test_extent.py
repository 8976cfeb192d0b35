"""What a picture's file holds, against the pictures that were put in."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images.extent import extent


def file_of(format: str, *sizes: tuple[int, int]) -> io.BytesIO:
    """Pictures of these widths and heights in one file."""
    first, *others = (Image.effect_noise(size, 50) for size in sizes)
    file = io.BytesIO()
    if others:
        first.save(file, format, save_all=True, append_images=others)
    else:
        first.save(file, format)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("container", "sizes", "format", "pixels"),
    [
        ("PNG", [(5, 4)], "PNG", 20),
        ("PNG", [(5, 4), (5, 4), (5, 4)], "PNG", 60),
        ("GIF", [(5, 4), (5, 4)], "GIF", 40),
        ("WEBP", [(5, 4), (5, 4)], "WEBP", 40),
        ("TIFF", [(5, 4), (5, 4)], "TIFF", 40),
        ("TIFF", [(5, 4), (30, 20)], "TIFF", 620),  # pages of any size
        ("MPO", [(16, 8), (16, 8)], "JPEG", 128),  # of a camera's the first alone counts
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_all_frames_and_pages(
    container: str, sizes: list[tuple[int, int]], format: str, pixels: int
) -> None:
    assert extent(file_of(container, *sizes), "p") == (format, pixels)


def test_damage_is_told() -> None:
    cut = io.BytesIO(file_of("TIFF", (5, 4), (30, 20)).getvalue()[:120])
    with pytest.raises(DvmsrError, match=r"^p is damaged or truncated; get a complete copy of it"):
        extent(cut, "p")
