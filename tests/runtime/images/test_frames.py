from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiffs import ASCII, DOUBLE, LONG, write_tiff

from dvmsr.runtime.images import frames
from dvmsr.runtime.images.picture import read_picture
from dvmsr.runtime.images.tiff import Damaged

PIXELS = np.arange(60).reshape(4, 5, 3)
PAGE, REDUCED, MASK = ({254: (LONG, [kind])} for kind in (2, 1, 4))


def of(path: Path) -> list[int]:
    with path.open("rb") as file, Image.open(file) as image:
        file.seek(5)
        found = list(frames.numbers(image, file))
        assert file.tell() == 5
    return found


@pytest.mark.parametrize(
    ("pages", "found"),
    [
        ([], [0]),
        ([PAGE, PAGE], [0, 1, 2]),
        ([REDUCED, REDUCED], [0]),
        ([MASK], [0]),
        ([PAGE, REDUCED, PAGE], [0, 1, 3]),
    ],
    ids=["one", "pages", "pyramid", "mask", "mixed"],
)
def test_overviews_and_masks_are_no_pages(tmp_path: Path, pages: list, found: list[int]) -> None:
    path = write_tiff(tmp_path / "p.tif", PIXELS, 8, 2, pages=pages)
    assert of(path) == found
    assert len(read_picture(path, lambda header: None).frames) == len(found)


def test_frames_of_a_gif_are_those_of_pillow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = [Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8)) for _ in range(5)]
    path = tmp_path / "p.gif"
    made[0].save(path, save_all=True, append_images=made[1:], comment=b"," * 300, loop=0)
    assert of(path) == list(range(5))
    data = path.read_bytes()
    with Image.open(path) as image:
        assert image.n_frames == 5
        counts = [
            len(frames.numbers(image, io.BytesIO(data[:length])))
            for length in range(len(data) // 2, len(data), 97)
        ]
    assert counts == sorted(counts)
    assert set(counts) <= {2, 3, 4, 5}


def test_other_formats_are_counted_by_pillow(tmp_path: Path) -> None:
    made = [Image.new("RGB", (6, 7), (k * 50, 0, 0)) for k in range(3)]
    for name in ("p.webp", "p.png"):
        made[0].save(tmp_path / name, save_all=True, append_images=made[1:])
        assert len(of(tmp_path / name)) == 3
    made[0].save(tmp_path / "p.jpg", "MPO", save_all=True, append_images=made[1:])
    assert len(of(tmp_path / "p.jpg")) == 1


def test_a_damaged_tiff_cannot_be_counted() -> None:
    with pytest.raises(Damaged):
        frames.pages(io.BytesIO(b"II*\0\xff\xff\0\0"))


def test_a_preview_before_the_picture_is_not_the_picture(tmp_path: Path) -> None:
    """Neither its pixels, nor its samples, nor what it tells."""
    of_preview = {**REDUCED, 270: (ASCII, list(b"preview\0")), 33550: (DOUBLE, [8.0, 8.0, 0.0])}
    of_picture = {
        254: (LONG, [0]),
        270: (ASCII, list(b"picture\0")),
        33550: (DOUBLE, [1.0, 1.0, 0.0]),
    }
    path = write_tiff(tmp_path / "p.tif", PIXELS, 8, 2, more=of_preview, pages=[of_picture])
    picture = read_picture(path, lambda header: None)
    assert len(picture.frames) == 1
    assert b"picture" in picture.metadata.exif
    assert b"preview" not in picture.metadata.exif
    assert of(path) == [1]
