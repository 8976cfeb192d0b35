"""Test sets on disk: layouts, sizes, kinds of images, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvmsr.data.imresize import imresize
from dvmsr.data.pairs import find_dataset, read_rgb
from dvmsr.errors import DvmsrError, UsageError


def write_image(path: Path, height: int, width: int, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_a_folder_of_originals_is_cropped_and_reduced(tmp_path: Path) -> None:
    original = write_image(tmp_path / "photos" / "b.png", 26, 39)
    write_image(tmp_path / "photos" / "a.bmp", 24, 24)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "._b.png").write_text("litter")
    dataset = find_dataset(tmp_path / "photos", 4)
    assert dataset.name == "photos"
    assert [pair.hr.name for pair in dataset.pairs] == ["a.bmp", "b.png"]
    pair = dataset.pairs[1].load(4)
    np.testing.assert_array_equal(pair.hr, read_rgb(original)[:24, :36])
    np.testing.assert_array_equal(pair.lr, imresize(pair.hr, 1 / 4))


def test_a_reduction_by_an_odd_scale_has_the_exact_size(tmp_path: Path) -> None:
    """In floating point, 297 * (1 / 99) is more than 3."""
    write_image(tmp_path / "a.png", 297, 198)
    (files,) = find_dataset(tmp_path, 99).pairs
    assert files.load(99).lr.shape == (3, 2, 3)


@pytest.mark.parametrize("lr_name", ["baby.png", "babyx3.png"])
@pytest.mark.parametrize("given", ["Set5", "Set5/HR"])
def test_reductions_on_disk_are_used(tmp_path: Path, lr_name: str, given: str) -> None:
    write_image(tmp_path / "Set5/HR/baby.png", 31, 40)
    low = write_image(tmp_path / "Set5/LRx3" / lr_name, 10, 13)
    dataset = find_dataset(tmp_path / given, 3)
    assert dataset.name == "Set5"
    pair = dataset.pairs[0].load(3)
    assert pair.hr.shape == (30, 39, 3)
    np.testing.assert_array_equal(pair.lr, read_rgb(low))


def test_reductions_of_another_scale_are_made(tmp_path: Path) -> None:
    write_image(tmp_path / "HR/baby.png", 24, 24)
    write_image(tmp_path / "LRx3/baby.png", 8, 8)
    assert find_dataset(tmp_path, 2).pairs[0].load(2).lr.shape == (12, 12, 3)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_gray_and_palette_become_rgb(tmp_path: Path, mode: str) -> None:
    path = write_image(tmp_path / "image.png", 12, 16, mode)
    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(read_rgb(path), expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_writable_as_pytorch_wants_them(tmp_path: Path, mode: str) -> None:
    assert read_rgb(write_image(tmp_path / "image.png", 12, 16, mode)).flags.writeable


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_refuses_transparency_but_not_an_opaque_alpha_channel(tmp_path: Path, mode: str) -> None:
    path = write_image(tmp_path / "image.png", 12, 16, mode)
    with Image.open(path) as image:
        image.load()
    np.testing.assert_array_equal(read_rgb(path), np.asarray(image.convert("RGB")))
    image.putpixel((3, 4), (*image.getpixel((3, 4))[:-1], 254))
    image.save(path)
    with pytest.raises(DvmsrError, match=r"image\.png has transparency"):
        read_rgb(path)


def test_refuses_what_is_no_test_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing is not a folder"):
        find_dataset(tmp_path / "missing", 4)
    with pytest.raises(UsageError, match="holds no images"):
        find_dataset(tmp_path, 4)


def test_refuses_a_missing_or_wrong_reduction(tmp_path: Path) -> None:
    write_image(tmp_path / "HR/a.png", 24, 36)
    write_image(tmp_path / "LRx4/a.png", 6, 8)
    with pytest.raises(UsageError, match=r"8x6 pixels, but .* has 9x6"):
        find_dataset(tmp_path, 4).pairs[0].load(4)
    (tmp_path / "LRx4/a.png").unlink()
    with pytest.raises(UsageError, match=r"LRx4/a\.png is missing"):
        find_dataset(tmp_path, 4)


def test_refuses_an_image_smaller_than_the_scale(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 3, 36)
    with pytest.raises(UsageError, match=r"a\.png is smaller than 4x4"):
        find_dataset(tmp_path, 4).pairs[0].load(4)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n broken"])
def test_refuses_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DvmsrError, match=r"a\.png"):
        find_dataset(tmp_path, 4).pairs[0].load(4)
