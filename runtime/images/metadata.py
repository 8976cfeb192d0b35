"""What a picture file says beside its pixels, and how the file of the enlarged picture says it."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, PngImagePlugin

from dvmsr.runtime.images import exif as exif_data
from dvmsr.runtime.images.jpeg import Jpeg, iptc_marker

EXIF_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
"""Formats that hold EXIF data and XMP."""
DPI_FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
COMMENT_FORMATS = ("JPEG", "GIF")

_COLOUR_CHUNKS = (b"cHRM", b"gAMA", b"sRGB", b"cICP")
"""Chunks of a PNG that tell what its colours mean (PNG 3.0, section 11.3.2)."""
_MOST_DPI = 65_535
"""That a JPEG says without EXIF data (JFIF 1.02)."""
_SEGMENT = 65_000
"""Bytes that a JPEG's segment holds with certainty, beside its head."""
_SIGNATURE = 8
_XMP_TEXT = "XML:com.adobe.xmp"
_NO_TEXT = (_XMP_TEXT, "Raw profile type exif", "Raw profile type APP1", "Raw profile type iptc")
"""Keywords whose text is metadata of another kind."""
_XMP_DROPPED = (
    rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>",
    rb'\s*tiff:Orientation="\d"',
    rb"<tiff:Orientation>\d</tiff:Orientation>",
)
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
    text: tuple[tuple[str, str], ...] = ()
    """Keywords and texts of a PNG."""
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Chunks of a PNG that tell what its colours mean."""
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
        return replace(self, colour_chunks=())

    def left_out(self, format: str, by_rows: bool = False) -> list[str]:
        """What a file of that format cannot say, in words; written by rows it says less."""
        exif = format in EXIF_FORMATS and not (by_rows and format == "TIFF")
        kept = {
            "EXIF data": not self.exif or (exif and _holds(format, self.exif)),
            "XMP": not self.xmp or (format in EXIF_FORMATS and _holds(format, self.xmp)),
            "IPTC data": not self.iptc
            or (format in ("JPEG", "TIFF") and _holds(format, self.iptc)),
            "the resolution": self.dpi is None or self._holds_dpi(format) or exif,
            "the comment": (format in COMMENT_FORMATS and not by_rows) or not self.comment,
            "its text": (format == "PNG" and not by_rows) or not self.text,
            "its gamma": (format == "PNG" and not by_rows) or not self._has_gamma(),
        }
        return [what for what, is_kept in kept.items() if not is_kept]

    def save_options(self, format: str) -> dict[str, Any]:
        """What Pillow's `save` takes to say as much as a file of that format can."""
        options: dict[str, Any] = {}
        if self.dpi and self._holds_dpi(format):
            options["dpi"] = self.dpi
        if self.comment and format in COMMENT_FORMATS:
            options["comment"] = self.comment
        if format == "TIFF":
            options["exif"] = self._tiff_tags()
            if self.exif:  # libtiff, which compresses, does not write its parts
                options["compression"] = "raw"
        elif format in EXIF_FORMATS:
            exif = self.exif
            if self.dpi and not exif and not self._holds_dpi(format):
                exif = exif_data.resolution(self.dpi)
            if exif and _holds(format, exif):
                options["exif"] = exif
            if self.xmp and format != "PNG" and _holds(format, self.xmp):
                options["xmp"] = self.xmp
        if format == "PNG":
            options["pnginfo"] = self._png_chunks()
        if format == "JPEG" and self.iptc and _holds(format, self.iptc):
            options["extra"] = iptc_marker(self.iptc)
        return options

    def _holds_dpi(self, format: str) -> bool:
        """Whether a file of that format can say the resolution, outside of EXIF data."""
        fits = format != "JPEG" or (self.dpi is not None and max(self.dpi) <= _MOST_DPI)
        return format in DPI_FORMATS and fits

    def _has_gamma(self) -> bool:
        """Whether a PNG says that its colours are not those of sRGB."""
        chunks = dict(self.colour_chunks)
        gamma = chunks.get(b"gAMA", struct.pack(">I", 45455))
        other = abs(int.from_bytes(gamma, "big") - 45455) > 500
        return b"sRGB" not in chunks and (other or b"cICP" in chunks)

    def _tiff_tags(self) -> Image.Exif:
        tags = exif_data.to_tiff(self.exif)
        if self.xmp:
            tags[exif_data.XMP_TAG] = self.xmp
        if self.iptc:
            tags[exif_data.IPTC_TAG] = self.iptc
        return tags

    def _png_chunks(self) -> PngImagePlugin.PngInfo:
        chunks = PngImagePlugin.PngInfo()
        for kind, data in self.colour_chunks:
            chunks.add(kind, data)
        if self.xmp:
            chunks.add_itxt(_XMP_TEXT, self.xmp.decode("utf-8", "replace"))
        for key, value in self.text:
            chunks.add_text(key, value)
        return chunks


EMPTY = Metadata()


def read_metadata(image: Image.Image, file: BinaryIO, name: str) -> Metadata:
    """What an open picture's file says; of a PNG, what is behind the pixels after they are decoded.

    Warns of EXIF data that is damaged.

    Args:
        file: what it is read from, whose position is kept.
        name: what messages call it.
    """
    info = image.info
    xmp = info.get("xmp") or info.get(_XMP_TEXT) or b""
    comment = info.get("comment") or b""
    text = info if image.format == "PNG" else {}
    place = file.tell()
    try:
        return Metadata(
            exif=_exif(image, name),
            xmp=xmp.encode() if isinstance(xmp, str) else bytes(xmp),
            iptc=_iptc(image),
            dpi=_dpi(image),
            comment=comment.encode() if isinstance(comment, str) else bytes(comment),
            text=tuple(
                (key, str(value))
                for key, value in text.items()
                if isinstance(key, str) and isinstance(value, str) and key not in _NO_TEXT
            ),
            colour_chunks=tuple(_colour_chunks(file)) if image.format == "PNG" else (),
            jpeg=Jpeg.of(image),
            lossless=image.format == "WEBP" and _is_lossless(file),
        )
    finally:
        file.seek(place)


def _exif(image: Image.Image, name: str) -> bytes:
    try:
        if isinstance(stored := image.info.get("exif"), bytes) and image.format != "TIFF":
            return exif_data.cleaned(stored)
        tags = Image.Image.getexif(image)  # the method of PNG would decode the picture
        return exif_data.from_tiff(tags) if len(tags) else b""
    except Exception:  # damaged bytes can make Pillow raise anything
        warnings.warn(f"{name}: its EXIF data is damaged and left out", stacklevel=4)
        return b""


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    if image.format == "TIFF" and exif_data.X_RESOLUTION not in getattr(image, "tag_v2", {}):
        return None  # where Pillow says 1
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
    for pattern in _XMP_DROPPED:
        xmp = re.sub(pattern, b"", xmp, flags=re.DOTALL)
    for name, side in zip(_XMP_SIZES, size, strict=True):
        xmp = re.sub(rb'(%b=")\d+(")' % name, rb"\g<1>%d\g<2>" % side, xmp)
        xmp = re.sub(rb"(<%b>)\d+(</)" % name, rb"\g<1>%d\g<2>" % side, xmp)
    return xmp


def _colour_chunks(file: BinaryIO) -> Iterable[tuple[bytes, bytes]]:
    """Those of a PNG."""
    file.seek(_SIGNATURE)
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind in (b"IDAT", b"IEND"):
            return
        if kind in _COLOUR_CHUNKS and length <= 32:
            yield kind, file.read(length)
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)


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
