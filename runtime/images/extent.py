"""How much a picture's file holds, known before anything of it is decoded."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

from dvmsr.runtime.images import frames
from dvmsr.runtime.images.decode import damaged, open_picture
from dvmsr.runtime.images.picture import PAGED


class Extent(NamedTuple):
    """Of all frames or pages together."""

    format: str
    """As in `formats.FORMATS`."""
    pixels: int


def extent(file: BinaryIO, name: str) -> Extent:
    """What the headers of a picture say.

    Args:
        file: at its start.
        name: what messages call it.

    Raises:
        DvmsrError: if it is no picture, or damaged.
    """
    with open_picture(file, name, bounded=False) as image:
        format = "JPEG" if image.format == "MPO" else str(image.format)
        try:
            numbers = frames.numbers(image, file)
            if format not in PAGED:  # all frames are of one size
                return Extent(format, image.width * image.height * len(numbers))
            pixels = 0
            for number in numbers:
                image.seek(number)
                pixels += image.width * image.height
        except Exception:  # damaged bytes can make Pillow raise anything
            raise damaged(name) from None
    return Extent(format, pixels)
