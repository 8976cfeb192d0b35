"""Test sets: folders of high-resolution images with or without their bicubic reductions.

Set5/HR/baby.png             or just   photos/a.jpg
Set5/LRx4/baby.png                     photos/b.jpg
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dvmsr.data.imresize import imresize
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.images.decode import read_image
from dvmsr.runtime.images.formats import FORMATS
from dvmsr.utils.paths import is_dir, is_file, unreadable

Pixels = NDArray[np.uint8]
"""An image (H, W, 3) or several (B, H, W, 3), RGB."""


@dataclass(frozen=True)
class Pair:
    """A high-resolution image (scale*h, scale*w, 3) and its reduction (h, w, 3), uint8 RGB."""

    hr: Pixels
    lr: Pixels


@dataclass(frozen=True)
class PairFiles:
    """A high-resolution image and, where it is on disk, its reduction."""

    hr: Path
    lr: Path | None

    def load(self, scale: int) -> Pair:
        """Read both; a reduction that is not on disk is made by `reduce`.

        Raises:
            UsageError: if the two sizes do not go together, or an image is smaller than `scale`.
            DvmsrError: if a file cannot be read or has transparency.
        """
        original = read_rgb(self.hr)
        if self.lr is None:
            return reduce(original, scale, str(self.hr))
        hr = crop_to_multiple(original, scale, str(self.hr))
        lr = read_rgb(self.lr)
        height, width = (length // scale for length in hr.shape[:2])
        if lr.shape[:2] != (height, width):
            raise UsageError(
                f"{self.lr} has {lr.shape[1]}x{lr.shape[0]} pixels, but {self.hr} reduced by "
                f"{scale} has {width}x{height}; make it again from that image"
            )
        return Pair(hr, lr)


def reduce(image: Pixels, scale: int, name: str) -> Pair:
    """An image, cropped to a multiple of the scale, and its reduction as MATLAB makes it.

    Raises:
        UsageError: if the image, called `name`, is smaller than `scale`.
    """
    hr = crop_to_multiple(image, scale, name)
    height, width = (length // scale for length in hr.shape[:2])  # 1 / scale would be rounded
    return Pair(hr, imresize(hr, size=(height, width)))


def crop_to_multiple(image: Pixels, scale: int, name: str) -> Pixels:
    """Drop the last rows and columns so that height and width are multiples of `scale`.

    Raises:
        UsageError: if nothing of the image, called `name`, is left.
    """
    height, width = (length - length % scale for length in image.shape[:2])
    if not height or not width:
        raise UsageError(
            f"{name} is smaller than {scale}x{scale} pixels; leave it out or take a larger one"
        )
    return np.ascontiguousarray(image[:height, :width])


@dataclass(frozen=True)
class Dataset:
    """A named folder of pairs, in the order of the file names."""

    name: str
    pairs: tuple[PairFiles, ...]


def find_dataset(folder: Path, scale: int) -> Dataset:
    """The pairs in a folder; no image is opened.

    Args:
        folder: high-resolution images, or `HR/` with them. `LRx{scale}/` beside `HR/` has the
            reductions, called as the originals or with `x{scale}` after the stem; without that
            folder they are made when loading.

    Raises:
        UsageError: if the folder is missing or without images, or a reduction is missing.
        DvmsrError: if the folder cannot be read.
    """
    if not is_dir(folder):
        raise UsageError(f"{folder} is not a folder; give a folder of high-resolution images")
    hr_folder = folder / "HR" if is_dir(folder / "HR") else folder
    root = hr_folder.parent if hr_folder.name == "HR" else hr_folder
    lr_folder = root / f"LRx{scale}"
    given = hr_folder.name == "HR" and is_dir(lr_folder)
    try:
        names = sorted(hr_folder.iterdir())
    except OSError as error:
        raise unreadable(hr_folder, error) from None
    images = [
        path for path in names if path.suffix.lower() in FORMATS and not path.name.startswith(".")
    ]
    if not images:
        raise UsageError(f"{hr_folder} holds no images ({', '.join(FORMATS)})")
    pairs = tuple(
        PairFiles(hr, _reduction(hr, lr_folder, scale) if given else None) for hr in images
    )
    return Dataset(root.resolve().name, pairs)


def _reduction(hr: Path, lr_folder: Path, scale: int) -> Path:
    for name in (hr.name, f"{hr.stem}x{scale}{hr.suffix}"):
        if is_file(lr_folder / name):
            return lr_folder / name
    raise UsageError(
        f"{lr_folder / hr.name} is missing; add it, or move {lr_folder} away to have all "
        "reductions made"
    )


def read_rgb(path: Path) -> Pixels:
    """An image file as uint8 RGB (H, W, 3), upright; see `to_rgb`.

    Raises:
        DvmsrError: if it cannot be read or has transparency.
    """
    return to_rgb(read_image(path), str(path))


def to_rgb(image: Image.Image, name: str) -> Pixels:
    """A picture as `dvmsr.runtime.images.decode` reads it as uint8 RGB (H, W, 3), writable.

    PyTorch warns of arrays that are not.

    Raises:
        DvmsrError: if it, called `name`, is transparent anywhere.
    """
    if "A" in image.getbands() and image.getchannel("A").getextrema() != (255, 255):
        raise DvmsrError(
            f"{name} has transparency, which no score or network covers; save it without"
        )
    return np.array(image.convert("RGB"))
