"""Which of a file's frames or pages are pictures of their own, without decoding one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from PIL import Image

from dvmsr.runtime.images.tiff import Damaged, Tiff
from dvmsr.utils import signals

_SUBFILE = 254
_REDUCED, _MASK = 1, 4
"""Bits of that tag: a smaller copy, or the holes, of another page (TIFF 6.0, section 8)."""
_GIF_HEAD, _GIF_DESCRIPTOR = 13, 9
_GIF_FRAME, _GIF_EXTENSION, _GIF_END = b",", b"!", b";"
_OFTEN = 1000
"""Frames after which a signal is looked for."""


def numbers(image: Image.Image, file: BinaryIO) -> Sequence[int]:
    """Those that are, as Pillow's `seek` counts them; of a camera's JPEG the first alone.

    Args:
        image: open.
        file: what it is read from, whose position is kept.

    Raises:
        tiff.Damaged: if they cannot be counted.
    """
    place = file.tell()
    try:
        if image.format == "MPO":
            return range(1)
        if image.format == "TIFF":
            return pages(file)
        if image.format == "GIF":
            return range(_gif_frames(file))
        return range(getattr(image, "n_frames", 1))
    finally:
        file.seek(place)


def pages(file: BinaryIO) -> list[int]:
    """The pages of a TIFF that are neither a smaller copy of another nor its mask.

    Raises:
        tiff.Damaged: if they cannot be counted.
    """
    found = []
    for number, tags in enumerate(Tiff(file).pages(_SUBFILE)):
        if number % _OFTEN == 0:
            signals.check()
        kind = tags[_SUBFILE].numbers if _SUBFILE in tags else ()
        if not kind or not int(kind[0]) & (_REDUCED | _MASK):
            found.append(number)
    return found or [0]


def _gif_frames(file: BinaryIO) -> int:
    """Frames of a GIF, to where it ends or is cut off (GIF89a, sections 18 to 27)."""
    file.seek(0)
    head = file.read(_GIF_HEAD)
    if len(head) < _GIF_HEAD:
        raise Damaged
    _skip_colours(file, head[10])
    count = 0
    while (kind := file.read(1)) not in (b"", _GIF_END):
        if kind == _GIF_FRAME:
            count += 1
            if count % _OFTEN == 0:
                signals.check()
            descriptor = file.read(_GIF_DESCRIPTOR)
            if len(descriptor) < _GIF_DESCRIPTOR:
                break
            _skip_colours(file, descriptor[8])
            file.seek(1, 1)
        elif kind == _GIF_EXTENSION:
            file.seek(1, 1)
        else:
            continue  # as Pillow does with bytes between blocks
        while (size := file.read(1)) not in (b"", b"\0"):
            file.seek(size[0], 1)
    return max(count, 1)


def _skip_colours(file: BinaryIO, flags: int) -> None:
    """Past a table of colours, if there is one."""
    if flags & 0x80:
        file.seek(3 << (flags & 7) + 1, 1)
