"""EXIF data, changed in place so that all else stays, byte for byte and where it is: the notes of
camera makers hold offsets of their own, and text is often not what the standard says.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD

HEAD = b"Exif\0\0"
XMP_TAG, IPTC_TAG = 700, 33723
_ORIENTATION, X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 274, 282, 283, 296
_PIXEL_X, _PIXEL_Y, _INTEROPERABILITY = 0xA002, 0xA003, 0xA005
_THUMBNAIL, _THUMBNAIL_BYTES = 513, 514
_RESOLUTION = {X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT}
_STORAGE = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284),
    *(288, 289, 290, 291, 292, 293, 297, 301, 317, 320, 321, 322, 323, 324, 325, 330, 332, 334),
    *(336, 338, 339, 340, 341, 342, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530),
    *(531, 532, 559),
}
"""Tags that tell how a TIFF stores its pixels (TIFF 6.0, appendix A)."""
_APART = {_ORIENTATION, XMP_TAG, IPTC_TAG, 34377, 34675, 37724}
"""Tags of a TIFF for what is kept elsewhere: XMP, IPTC data, the colour profile; and, with
thumbnails and layers of the small picture, for what Photoshop adds."""
_TIFF = 42
"""What follows the byte order (TIFF 6.0, section 2)."""
_ENTRY, _LONG, _RATIONAL, _INCH = 12, 4, 5, 2
_PARTS = (IFD.Exif, IFD.GPSInfo)


class Damaged(Exception):
    """EXIF data that cannot be read."""


@dataclass(frozen=True)
class _Entry:
    """A tag; `place` is that of its entry in the data."""

    place: int
    tag: int
    type: int


class _Data:
    """EXIF data that is being changed (TIFF 6.0, section 2)."""

    def __init__(self, exif: bytes) -> None:
        self.bytes = bytearray(exif.removeprefix(HEAD))
        self._order = {b"II": "<", b"MM": ">"}[bytes(self.bytes[:2])]
        if self.short(2) != _TIFF:
            raise Damaged
        self.main = self.long(4)

    def long(self, place: int) -> int:
        return int(struct.unpack_from(f"{self._order}I", self.bytes, place)[0])

    def set_long(self, place: int, value: int) -> None:
        struct.pack_into(f"{self._order}I", self.bytes, place, value)

    def short(self, place: int) -> int:
        return int(struct.unpack_from(f"{self._order}H", self.bytes, place)[0])

    def entries(self, directory: int) -> Iterator[_Entry]:
        for place in range(directory + 2, self.end(directory), _ENTRY):
            yield _Entry(place, self.short(place), self.short(place + 2))

    def end(self, directory: int) -> int:
        """Behind the entries, where it says where the next directory is."""
        return directory + 2 + _ENTRY * self.short(directory)

    def remove(self, directory: int, entry: _Entry) -> None:
        end = self.end(directory) + 4
        self.bytes[entry.place : end] = self.bytes[entry.place + _ENTRY : end] + bytes(_ENTRY)
        struct.pack_into(f"{self._order}H", self.bytes, directory, self.short(directory) - 1)

    def set_number(self, entry: _Entry, value: int) -> None:
        """One unsigned number of 32 bits."""
        struct.pack_into(f"{self._order}HII", self.bytes, entry.place + 2, _LONG, 1, value)

    def multiply(self, entry: _Entry, factor: int) -> None:
        """A ratio, unless that is too large."""
        place = self.long(entry.place + 8)
        above, below = self.long(place), self.long(place + 4)
        if below % factor == 0:
            self.set_long(place + 4, below // factor)
        elif above * factor < 1 << 32:
            self.set_long(place, above * factor)

    def drop_thumbnail(self) -> None:
        link = self.end(self.main)
        second = self.long(link)
        if second == 0:
            return
        found = {entry.tag: self.long(entry.place + 8) for entry in self.entries(second)}
        self.set_long(link, 0)
        start, count = found.get(_THUMBNAIL, 0), found.get(_THUMBNAIL_BYTES, 0)
        if start and start + count >= len(self.bytes):
            del self.bytes[start:]
        elif start:
            self.bytes[start : start + count] = bytes(count)


def cleaned(exif: bytes) -> bytes:
    """EXIF data without orientation and thumbnail, with `HEAD`.

    Raises:
        Damaged: if it cannot be read.
    """
    try:
        data = _Data(exif)
        data.drop_thumbnail()
        for entry in list(data.entries(data.main)):
            if entry.tag == _ORIENTATION:
                data.remove(data.main, entry)
                break
    except (struct.error, KeyError):
        raise Damaged from None
    return HEAD + bytes(data.bytes)


def enlarged(exif: bytes, scale: int, size: tuple[int, int]) -> bytes:
    """With `scale` times as many pixels per inch, and that width and height wherever it tells one.

    Args:
        exif: as `cleaned` gives it.
    """
    data = _Data(exif)
    sides = dict(zip((_PIXEL_X, _PIXEL_Y), size, strict=True))
    try:
        for entry in data.entries(data.main):
            if entry.tag in (X_RESOLUTION, _Y_RESOLUTION) and entry.type == _RATIONAL:
                data.multiply(entry, scale)
            elif entry.tag == IFD.Exif:
                for inner in data.entries(data.long(entry.place + 8)):
                    if inner.tag in sides:
                        data.set_number(inner, sides[inner.tag])
    except struct.error:
        return exif
    return HEAD + bytes(data.bytes)


def from_tiff(tags: Image.Exif) -> bytes:
    """What a TIFF tells in its own tags, as EXIF data without what describes how it is stored;
    nothing if that is its resolution alone."""
    kept = Image.Exif()
    for tag, value in tags.items():
        if tag not in _STORAGE | _APART and tag not in _PARTS:
            kept[tag] = _as_stored(value)
    for tag in _PARTS:
        _copy_part(tags, kept, tag)
    return kept.tobytes() if set(kept) - _RESOLUTION else b""


def to_tiff(exif: bytes) -> Image.Exif:
    """EXIF data as Pillow's `save` takes it for a TIFF."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
    for tag, value in list(tags.items()):
        if tag in _STORAGE | _APART:
            del tags[tag]
        elif tag not in _PARTS:
            tags[tag] = _as_stored(value)
    for part in _PARTS:
        if part in tags:
            values = tags.get_ifd(part)
            values.update((tag, _as_stored(value)) for tag, value in values.items())
    return tags


def resolution(dpi: tuple[float, float]) -> bytes:
    """EXIF data that tells nothing else."""
    exif = Image.Exif()
    exif[X_RESOLUTION], exif[_Y_RESOLUTION] = dpi
    exif[_RESOLUTION_UNIT] = _INCH
    return exif.tobytes()


def _as_stored(value: Any) -> Any:
    """Text beyond ASCII as the bytes that it was read from, as Pillow reads Latin-1 but does not
    write it."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("latin-1", "replace")
    return value


def _copy_part(source: Image.Exif, target: Image.Exif, tag: int) -> None:
    """The Exif or the GPS part, if there is one."""
    values = {key: _as_stored(value) for key, value in source.get_ifd(tag).items()}
    if isinstance(values.get(_INTEROPERABILITY), int):
        inner = source.get_ifd(IFD.Interop)
        values[_INTEROPERABILITY] = {key: _as_stored(value) for key, value in inner.items()}
    if values:
        target[tag] = values
