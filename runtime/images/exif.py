"""EXIF data, changed in place so that all else stays, byte for byte and where it is: the notes of
camera makers hold offsets of their own, and text is often not what the standard says.
"""

import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from PIL import Image
from PIL.ExifTags import IFD

from dvmsr.runtime.images import geo, tiff
from dvmsr.runtime.images.tiff import Tiff, Value

HEAD = b"Exif\0\0"
XMP_TAG, IPTC_TAG = 700, 33723
ORIENTATION, X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 274, 282, 283, 296
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003
_THUMBNAIL, _THUMBNAIL_BYTES = 513, 514
RESOLUTION = {X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT}
_STORAGE = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284),
    *(288, 289, 290, 291, 292, 293, 297, 301, 317, 320, 321, 322, 323, 324, 325, 330, 332, 334),
    *(336, 338, 339, 340, 341, 342, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530),
    *(531, 532, 559),
}
"""Tags that tell how a TIFF stores its pixels (TIFF 6.0, appendix A)."""
_APART = {ORIENTATION, XMP_TAG, IPTC_TAG, 34377, 34675, 37724}
"""Tags of a TIFF for what is kept elsewhere: XMP, IPTC data, the colour profile; and, with
thumbnails and layers of the small picture, for what Photoshop adds."""
_TIFF = 42
"""What follows the byte order (TIFF 6.0, section 2)."""
_ENTRY, _INCH = 12, 2
_FLOATS = {tiff.FLOAT: "f", tiff.DOUBLE: "d"}


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
            raise tiff.Damaged
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
        struct.pack_into(f"{self._order}HII", self.bytes, entry.place + 2, tiff.LONG, 1, value)

    def multiply(self, entry: _Entry, factor: int) -> None:
        """A ratio, unless that is too large."""
        place = self.long(entry.place + 8)
        above, below = self.long(place), self.long(place + 4)
        if below % factor == 0:
            self.set_long(place + 4, below // factor)
        elif above * factor < 1 << 32:
            self.set_long(place, above * factor)

    def numbers(self, entry: _Entry, code: str) -> tuple[Any, ...]:
        """Those of an entry that are too many for it."""
        count, place = self.long(entry.place + 4), self.long(entry.place + 8)
        return struct.unpack_from(f"{self._order}{count}{code}", self.bytes, place)

    def set_numbers(self, entry: _Entry, code: str, values: Sequence[float]) -> None:
        """As many as there are."""
        place = self.long(entry.place + 8)
        struct.pack_into(f"{self._order}{len(values)}{code}", self.bytes, place, *values)

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
        tiff.Damaged: if it cannot be read.
    """
    try:
        data = _Data(exif)
        data.drop_thumbnail()
        for entry in list(data.entries(data.main)):
            if entry.tag == ORIENTATION:
                data.remove(data.main, entry)
                break
    except (struct.error, KeyError):
        raise tiff.Damaged from None
    return HEAD + bytes(data.bytes)


def enlarged(exif: bytes, scale: int, size: tuple[int, int]) -> bytes:
    """With `scale` times as many pixels per inch, that width and height wherever it tells one, and
    the same place on earth.

    Args:
        exif: as `cleaned` gives it.
    """
    data = _Data(exif)
    sides = dict(zip((_PIXEL_X, _PIXEL_Y), size, strict=True))
    try:
        entries = {entry.tag: entry for entry in data.entries(data.main)}
        keys = entries.get(geo.KEYS)
        point = keys is not None and geo.is_point(data.numbers(keys, "H"))
        for entry in entries.values():
            if entry.tag in (X_RESOLUTION, _Y_RESOLUTION) and entry.type == tiff.RATIONAL:
                data.multiply(entry, scale)
            elif entry.tag in geo.TAGS and entry.type in _FLOATS:
                code = _FLOATS[entry.type]
                numbers = geo.enlarged(entry.tag, data.numbers(entry, code), scale, point)
                data.set_numbers(entry, code, numbers)
            elif entry.tag == IFD.Exif:
                for inner in data.entries(data.long(entry.place + 8)):
                    if inner.tag in sides:
                        data.set_number(inner, sides[inner.tag])
    except struct.error:
        return exif
    return HEAD + bytes(data.bytes)


def from_tiff(file: BinaryIO, page: int, name: str) -> bytes:
    """What a TIFF tells in the tags of a page, as EXIF data without what describes how it is
    stored; nothing if that is its resolution alone.

    Warns if a place on earth is left out, as the page is stored turned.

    Args:
        name: what the warning calls the file.

    Raises:
        tiff.Damaged: if it cannot be read.
    """
    found = Tiff(file)
    tags = found.directory(lambda tag: _tells(tag) or tag == ORIENTATION, found.place(page))
    turned = tags.pop(ORIENTATION, None)
    if turned and turned.numbers[:1] not in ((), (0,), (1,)) and geo.TAGS & set(tags):
        warnings.warn(
            f"{name}: its place on earth is left out, as the picture is stored turned",
            stacklevel=5,
        )
        tags = {tag: value for tag, value in tags.items() if tag not in geo.TAGS}
    return HEAD + tiff.as_exif(tags) if set(tags) - RESOLUTION else b""


def to_tiff(exif: bytes) -> dict[int, Value]:
    """EXIF data as the tags of a TIFF.

    Raises:
        tiff.Damaged: if it cannot be read.
    """
    return Tiff(BytesIO(exif.removeprefix(HEAD))).directory(_tells) if exif else {}


def tells(tags: Iterable[int]) -> bool:
    """Whether these tags of a TIFF say more than `from_tiff` leaves out."""
    return any(_tells(tag) and tag not in RESOLUTION for tag in tags)


def _tells(tag: int) -> bool:
    return tag not in _STORAGE and tag not in _APART


def resolution(dpi: tuple[float, float]) -> bytes:
    """EXIF data that tells nothing else."""
    exif = Image.Exif()
    exif[X_RESOLUTION], exif[_Y_RESOLUTION] = dpi
    exif[_RESOLUTION_UNIT] = _INCH
    return exif.tobytes()
