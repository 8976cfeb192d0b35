"""What a picture file says beside its pixels, and how the file of the enlarged picture says it."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from dvmsr.runtime.images import exif as exif_data
from dvmsr.runtime.images.jpeg import Jpeg, iptc_marker

EXIF_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
"""Formats that hold EXIF data and XMP."""
DPI_FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
COMMENT_FORMATS = ("JPEG", "GIF")
IPTC_FORMATS = ("JPEG", "TIFF")

_COLOUR_CHUNKS = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_SHAPE_CHUNK, _EXIF_CHUNK = b"pHYs", b"eXIf"
"""Chunks of a PNG that tell what its colours mean, hold text, and tell how wide pixels are for
their height (PNG 3.0, sections 11.3.2 to 11.3.4)."""
_MOST_TEXT = 64 << 20
"""Bytes of chunks that are kept of a PNG."""
_MOST_DPI = 65_535
"""That a JPEG says without EXIF data (JFIF 1.02)."""
_SEGMENT = 65_000
"""Bytes that a JPEG's segment holds with certainty, beside its head."""
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
"""What begins a part of it (XMP specification, part 3, section 1.1.3.1)."""
_SIGNATURE = 8
_XMP_TEXT = "XML:com.adobe.xmp"
_NO_TEXT = (
    *(b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1"),
    b"Raw profile type iptc",
)
"""Keywords whose text is metadata of another kind."""
_XMP_THUMBNAILS = (b"xmp:Thumbnails", b"xap:Thumbnails")
_XMP_DROPPED = (
    rb'\s?tiff:Orientation="\d"',
    rb"<tiff:Orientation>\d</tiff:Orientation>",
)
_XMP_EXTENSION = (
    rb'\s?xmpNote:HasExtendedXMP="\w*"',
    rb"\s?xmpNote:HasExtendedXMP='\w*'",
    rb"<xmpNote:HasExtendedXMP>\w*</xmpNote:HasExtendedXMP>",
)
"""What tells that there is more."""
_XMP_SIZES = (
    rb"(?:tiff:ImageWidth|exif:PixelXDimension)",
    rb"(?:tiff:Image(?:Length|Height)|exif:PixelYDimension)",
)


@dataclass(frozen=True)
class Metadata:
    """What one picture's file says beside pixels and colour profile; empty if it does not."""

    exif: bytes = b""
    """EXIF data (EXIF 2.3), as `exif.cleaned` or `exif.from_tiff` gives it."""
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, across and down."""
    comment: bytes = b""
    extended_xmp: tuple[bytes, ...] = ()
    """The segments of a JPEG that hold what does not go into one."""
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Kinds and contents of chunks of a PNG: what its colours mean, text, the shape of pixels."""
    jpeg: Jpeg | None = None
    """How a JPEG is compressed."""
    lossless: bool = False
    """Of a WebP, whether it is."""

    def enlarged(self, scale: int, size: tuple[int, int]) -> Metadata:
        """For the picture `scale` times as wide and high, which then has that size (W, H).

        It has as many more pixels per inch, so that it is printed as large as before.
        """
        dpi = self.dpi and (self.dpi[0] * scale, self.dpi[1] * scale)
        exif = exif_data.enlarged(self.exif, scale, size) if self.exif else b""
        return replace(self, dpi=dpi, exif=exif, xmp=_enlarged_xmp(self.xmp, size))

    def without_colour_chunks(self) -> Metadata:
        """For a picture whose colours mean something else now."""
        kept = tuple(chunk for chunk in self.chunks if chunk[0] not in _COLOUR_CHUNKS)
        return replace(self, chunks=kept)

    def for_format(self, format: str) -> Metadata:
        """Without what a file of that format cannot say."""
        xmp = self.xmp
        if format != "JPEG" and self.extended_xmp:
            for pattern in _XMP_EXTENSION:
                xmp = re.sub(pattern, b"", xmp)
        return replace(
            self,
            exif=self.exif if format in EXIF_FORMATS and _holds(format, self.exif) else b"",
            xmp=xmp if format in EXIF_FORMATS and _holds(format, xmp) else b"",
            iptc=self.iptc if format in IPTC_FORMATS and _holds(format, self.iptc) else b"",
            comment=self.comment
            if format in COMMENT_FORMATS and _holds(format, self.comment)
            else b"",
            extended_xmp=self.extended_xmp if format == "JPEG" else (),
            chunks=self.chunks if format == "PNG" else (),
        )

    def left_out(self, format: str) -> list[str]:
        """What a file of that format cannot say, in words."""
        held, kinds = self.for_format(format), {kind for kind, _ in self.chunks}
        png = format == "PNG"
        kept = {
            "EXIF data": held.exif == self.exif,
            "XMP": bool(held.xmp) == bool(self.xmp),
            "extended XMP": held.extended_xmp == self.extended_xmp,
            "IPTC data": held.iptc == self.iptc,
            "the resolution": self.dpi is None or self.holds_dpi(format) or format in EXIF_FORMATS,
            "the comment": held.comment == self.comment,
            "its text": png or not kinds.intersection(_TEXT_CHUNKS),
            "the shape of its pixels": png or _SHAPE_CHUNK not in kinds,
            "its gamma": png or not self._has_gamma(),
        }
        return [what for what, is_kept in kept.items() if not is_kept]

    def save_options(self, format: str) -> dict[str, Any]:
        """What Pillow's `save` takes to say as much as it can in a file of that format, for which
        this is; the rest is said by `annotations`."""
        options: dict[str, Any] = {}
        if self.dpi and self.holds_dpi(format):
            options["dpi"] = self.dpi
        if self.comment and format == "GIF":
            options["comment"] = self.comment
        exif = self.exif or (exif_data.resolution(self.dpi) if self.dpi else b"")
        if exif and format in ("WEBP", "AVIF"):
            options["exif"] = exif
        if self.xmp and format in ("WEBP", "AVIF", "JPEG"):
            options["xmp"] = self.xmp
        if format == "JPEG" and self.iptc:
            options["extra"] = iptc_marker(self.iptc)
        return options

    def holds_dpi(self, format: str) -> bool:
        """Whether a file of that format can say the resolution, outside of EXIF data."""
        fits = format != "JPEG" or (self.dpi is not None and max(self.dpi) <= _MOST_DPI)
        return format in DPI_FORMATS and fits

    def _has_gamma(self) -> bool:
        """Whether a PNG says that its colours are not those of sRGB."""
        chunks = dict(self.chunks)
        gamma = chunks.get(b"gAMA", struct.pack(">I", 45455))
        other = abs(int.from_bytes(gamma, "big") - 45455) > 500
        return b"sRGB" not in chunks and (other or b"cICP" in chunks)


EMPTY = Metadata()


def read_metadata(image: Image.Image, file: BinaryIO, name: str) -> Metadata:
    """What an open picture's file says; of a PNG, what is behind the pixels after they are decoded.

    Warns of EXIF data that is damaged.

    Args:
        file: what it is read from, whose position is kept.
        name: what messages call it.
    """
    info, place = image.info, file.tell()
    try:
        chunks = tuple(_chunks(file)) if image.format == "PNG" else ()
        comment = info.get("comment") or b""
        return Metadata(
            exif=_exif(image, file, name, chunks),
            xmp=_xmp(info, chunks),
            iptc=_iptc(image),
            dpi=_dpi(image),
            comment=comment.encode() if isinstance(comment, str) else bytes(comment),
            extended_xmp=tuple(part for part in _segments(image) if part.startswith(_EXTENDED_XMP)),
            chunks=tuple(chunk for chunk in chunks if not _is_metadata(*chunk)),
            jpeg=Jpeg.of(image),
            lossless=image.format == "WEBP" and _is_lossless(file),
        )
    finally:
        file.seek(place)


def says_more(page: Image.Image) -> bool:
    """Whether a page of a TIFF that is open at it has EXIF data, XMP or IPTC data of its own."""
    tags = getattr(page, "tag_v2", {})
    return exif_data.tells(tags) or bool({exif_data.XMP_TAG, exif_data.IPTC_TAG} & set(tags))


def orientation(image: Image.Image, file: BinaryIO) -> int:
    """How an open picture is stored turned (EXIF 2.3, tag 0x0112), as EXIF data or XMP tells, of a
    PNG behind its pixels, too."""
    found: Any = Image.Image.getexif(image).get(exif_data.ORIENTATION)
    if found is None and image.format == "PNG":
        place = file.tell()
        chunks = tuple(_chunks(file))
        file.seek(place)
        stored = dict(chunks).get(_EXIF_CHUNK)
        if stored:
            exif = Image.Exif()
            exif.load(stored)
            found = exif.get(exif_data.ORIENTATION)
        elif told := re.search(rb'tiff:Orientation(?:="|>)(\d)', _xmp(image.info, chunks)):
            found = int(told[1])
    return int(found) if found in range(1, 9) else 1


def _exif(
    image: Image.Image, file: BinaryIO, name: str, chunks: Iterable[tuple[bytes, bytes]]
) -> bytes:
    try:
        if image.format == "TIFF":
            return exif_data.from_tiff(file, image.tell(), name)
        if "exif" not in image.info and _EXIF_CHUNK in (found := dict(chunks)):
            return exif_data.cleaned(found[_EXIF_CHUNK])
        if isinstance(stored := image.info.get("exif"), bytes):
            return exif_data.cleaned(stored)
        tags = Image.Image.getexif(image)  # the method of PNG would decode the picture
        return exif_data.cleaned(tags.tobytes()) if exif_data.tells(tags) else b""
    except Exception:  # damaged bytes can make Pillow raise anything
        warnings.warn(f"{name}: its EXIF data is damaged and left out", stacklevel=4)
        return b""


def _xmp(info: dict[Any, Any], chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Also of a PNG that has it behind its pixels, before these are decoded."""
    found = info.get("xmp") or info.get(_XMP_TEXT) or b""
    for kind, data in chunks if not found else ():
        keyword, _, rest = data.partition(b"\0")
        if kind == b"iTXt" and keyword == _XMP_TEXT.encode() and rest[:1] == b"\0":
            found = rest[2:].split(b"\0", 2)[-1]
    return found.encode() if isinstance(found, str) else bytes(found)


def _segments(image: Image.Image) -> list[bytes]:
    """The contents of a JPEG's segments for applications."""
    return [data for _, data in getattr(image, "applist", ())]


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    if image.format == "TIFF" and exif_data.X_RESOLUTION not in getattr(image, "tag_v2", {}):
        return None  # where Pillow says 1
    if (
        image.format in ("JPEG", "MPO")
        and not image.info.get("jfif_unit")
        and exif_data.X_RESOLUTION not in Image.Image.getexif(image)
    ):
        return None  # where it says 72
    try:
        across, down = (float(value) for value in image.info.get("dpi", ()))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def _iptc(image: Image.Image) -> bytes:
    """IPTC data (IIM 4.2), of a JPEG in the resource 0x0404 of Photoshop's marker."""
    blocks = image.info.get("photoshop")
    if isinstance(blocks, dict):
        found = blocks.get(0x0404, b"")
    else:
        found = getattr(image, "tag_v2", {}).get(exif_data.IPTC_TAG, b"")
    return found if isinstance(found, bytes) else b""


def _holds(format: str, data: bytes) -> bool:
    """Whether so much EXIF data, XMP or IPTC data goes into a segment of a JPEG."""
    return format != "JPEG" or len(data) <= _SEGMENT


def _enlarged_xmp(xmp: bytes, size: tuple[int, int]) -> bytes:
    """With that size wherever it tells one, as an attribute or an element."""
    for name in _XMP_THUMBNAILS:
        xmp = _without_element(xmp, name)
    for pattern in _XMP_DROPPED:
        xmp = re.sub(pattern, b"", xmp)
    for name, side in zip(_XMP_SIZES, size, strict=True):
        xmp = re.sub(rb'(%b=")\d+(")' % name, rb"\g<1>%d\g<2>" % side, xmp)
        xmp = re.sub(rb"(<%b>)\d+(</)" % name, rb"\g<1>%d\g<2>" % side, xmp)
    return xmp


def _without_element(xmp: bytes, name: bytes) -> bytes:
    """Without what stands between its tags, in time that is linear."""
    kept, place, end = [], 0, b"</" + name + b">"
    while (start := xmp.find(b"<" + name, place)) >= 0 and (stop := xmp.find(end, start)) >= 0:
        kept.append(xmp[place:start])
        place = stop + len(end)
    return b"".join([*kept, xmp[place:]])


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Those of a PNG that tell something and are not damaged."""
    file.seek(_SIGNATURE)
    kept, colours = 0, True
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IEND":
            return
        colours &= kind != b"IDAT"
        wanted = kind in (*_TEXT_CHUNKS, _EXIF_CHUNK) or (
            colours and kind in (*_COLOUR_CHUNKS, _SHAPE_CHUNK)
        )
        if not wanted or kept + length > _MOST_TEXT:
            file.seek(length + 4, 1)
            continue
        data = file.read(length)
        if file.read(4) == zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big"):
            kept += length
            yield kind, data


def _is_metadata(kind: bytes, data: bytes) -> bool:
    """Whether a chunk says what is kept elsewhere: XMP and the like, or pixels per inch."""
    if kind == _EXIF_CHUNK:
        return True
    if kind == _SHAPE_CHUNK:
        return data[8:] != b"\0" or data[:4] == data[4:8]
    return kind in _TEXT_CHUNKS and data.partition(b"\0")[0] in _NO_TEXT


def _is_lossless(file: BinaryIO) -> bool:
    """Whether the first picture of a WebP is (RFC 9649)."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
        file.seek(16 if kind == b"ANMF" else length + length % 2, 1)
    return False


def tell_left_out(path: Path, format: str, what: list[str]) -> None:
    """Warn of what the result's format cannot say."""
    if what:
        warnings.warn(f"{path}: {format} cannot hold {', '.join(what)}, left out", stacklevel=2)
