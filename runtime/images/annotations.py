"""What the encoders cannot say of a picture, put into the files that they write: chunks of a PNG,
segments of a JPEG, tags of a TIFF."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from dvmsr.runtime.images import exif as exif_data
from dvmsr.runtime.images import tiff
from dvmsr.runtime.images.metadata import Metadata
from dvmsr.runtime.images.tiff import Tiff, Value

BEGINNINGS = ("PNG", "JPEG")
"""Formats in which it stands before the pixels."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = len(PNG_SIGNATURE) + 25
"""Bytes of a PNG's signature and first chunk."""
_XMP_TEXT = b"XML:com.adobe.xmp" + bytes(5)
"""What precedes XMP that is not compressed (XMP specification, part 3, section 1.1.5)."""
_COMMENT, _JFIF, _APP1 = b"\xff\xfe", b"\xff\xe0", b"\xff\xe1"
"""Markers of a JPEG (ITU-T T.81, table B.1)."""
_JFIF_DENSITY = 11
"""Where in that segment its unit stands, and then its numbers (JFIF 1.02)."""


def annotated(encoded: bytes, format: str, metadata: Metadata) -> bytes:
    """A file with what its encoder could not say."""
    if format in BEGINNINGS:
        return beginning(encoded, format, metadata) or encoded
    if format != "TIFF":
        return encoded
    file = BytesIO(encoded)
    annotate_tiff(file, metadata)
    return file.getvalue()


def annotate_tiff(file: BinaryIO, metadata: Metadata) -> None:
    """Give the first page of an open file the tags that tell as much.

    Raises:
        tiff.Damaged: if there is no room for them.
    """
    values: dict[int, Value | None] = {}
    if metadata.dpi is None:
        values |= dict.fromkeys(exif_data.RESOLUTION)
    values |= exif_data.to_tiff(metadata.exif)
    if metadata.xmp:
        values[exif_data.XMP_TAG] = Value(tiff.BYTE, metadata.xmp)
    if metadata.iptc:
        values[exif_data.IPTC_TAG] = Value(tiff.UNDEFINED, metadata.iptc)
    if values:
        Tiff(file).change(values)


def beginning(data: bytes, format: str, metadata: Metadata) -> bytes | None:
    """The beginning of a file, of one of `BEGINNINGS`, with what comes before the pixels; None if
    it does not reach so far."""
    return (_png if format == "PNG" else _jpeg)(data, metadata)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG (PNG 1.2, section 3.2)."""
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _png(data: bytes, metadata: Metadata) -> bytes | None:
    place, kept = _HEAD, b""
    while data[place + 4 : place + 8] != b"IDAT":
        if place + 8 > len(data):
            return None
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if metadata.dpi or data[place + 4 : place + 8] != b"pHYs":
            kept += data[place:end]
        place = end
    ours = b"".join(chunk(*one) for one in metadata.chunks)
    if metadata.exif:
        ours += chunk(b"eXIf", metadata.exif.removeprefix(exif_data.HEAD))
    if metadata.xmp:
        ours += chunk(b"iTXt", _XMP_TEXT + metadata.xmp)
    return data[:_HEAD] + ours + kept + data[place:]


def _jpeg(data: bytes, metadata: Metadata) -> bytes | None:
    place, kept, exif = 2, b"", _exif_segment(metadata)
    while True:
        if place + 4 > len(data):
            return None
        marker, length = data[place : place + 2], int.from_bytes(data[place + 2 : place + 4], "big")
        if not b"\xff\xe0" <= marker <= b"\xff\xef":
            break
        segment = data[place : place + 2 + length]
        if marker == _JFIF and not metadata.dpi:
            nothing = struct.pack(">BHH", 0, 1, 1)
            segment = segment[:_JFIF_DENSITY] + nothing + segment[_JFIF_DENSITY + 5 :]
        if marker != _JFIF:
            kept, exif = kept + exif, b""
        kept += segment
        place += 2 + length
    ours = b"".join(segment for segment in _segments(metadata))
    return data[:2] + kept + exif + ours + data[place:]


def _exif_segment(metadata: Metadata) -> bytes:
    """What stands behind that of JFIF, if there is one: what it cannot say of the resolution is
    said here."""
    exif = metadata.exif
    if metadata.dpi and not exif and not metadata.holds_dpi("JPEG"):
        exif = exif_data.resolution(metadata.dpi)
    if not exif:
        return b""
    exif = exif_data.HEAD + exif.removeprefix(exif_data.HEAD)
    return _APP1 + (len(exif) + 2).to_bytes(2, "big") + exif


def _segments(metadata: Metadata) -> Iterator[bytes]:
    for part in metadata.extended_xmp:
        yield _APP1 + (len(part) + 2).to_bytes(2, "big") + part
    if metadata.comment:
        yield _COMMENT + (len(metadata.comment) + 2).to_bytes(2, "big") + metadata.comment
