"""What the samples of a TIFF or BMP are, and which of them are read: these formats hold more kinds
than the libraries decode, and some of them the libraries decode to something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from dvmsr.runtime.images.tiff import Damaged, Tiff

_COMPRESSION = 259
_COMPRESSIONS = {
    34887: "LERC",
    34892: "JPEG (DNG)",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Those beyond TIFF 6.0 and its supplements."""
_NOT_IN_MEMORY = set(_COMPRESSIONS) - {34925, 50000}
_NOT_BY_ROWS = set(_COMPRESSIONS) - {50001}
_BITS, _PHOTOMETRIC, _FILL_ORDER, _BANDS = 258, 262, 266, 277
_PLANES, _EXTRA, _FORMAT = 284, 338, 339
_APART = 2
"""Of the planes: one band after the other."""
_LOW_BITS_FIRST = 2
_UNSIGNED = 1
_NUMBERS = {2: "signed ", 3: "floating-point ", 4: "untyped ", 5: "complex ", 6: "complex "}
_INVERTED, _GRAY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {
    _INVERTED: "inverted gray",
    _GRAY: "gray",
    _RGB: "RGB",
    _PALETTE: "palette",
    4: "mask",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    _LAB: "Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "raw sensor",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_UNSPECIFIED, _ALPHA = 0, 2
"""What a band beyond the colours is; between them, alpha that the colours are multiplied by."""
_MOST_BANDS = 65_535
TAGS = {_COMPRESSION, _BITS, _PHOTOMETRIC, _FILL_ORDER, _BANDS, _PLANES, _EXTRA, _FORMAT}


@dataclass(frozen=True)
class Samples:
    """Those of a TIFF's first picture (TIFF 6.0, sections 8 and 18 to 22)."""

    bits: tuple[int, ...]
    """Of each band."""
    formats: tuple[int, ...]
    photometric: int
    extra: tuple[int, ...]
    """What each band beyond the colours is."""
    planar: bool
    reversed: bool
    """Whether the lowest bits of a byte come first."""
    compression: int = 1
    """Its number (TIFF 6.0, section 8, and registered since)."""

    @classmethod
    def of(cls, tags: Mapping[int, Sequence[float]]) -> Samples:
        """What those of `TAGS` that there are say."""

        def several(tag: int, otherwise: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(int(one) for one in tags[tag]) if tags.get(tag) else otherwise

        (bands, *_), bits = several(_BANDS, (1,)), several(_BITS, (1,))
        bits = bits if len(bits) == bands else bits[:1] * min(bands, _MOST_BANDS)
        (photometric, *_) = several(_PHOTOMETRIC, (_INVERTED,))
        untold = (_ALPHA,) if photometric == _RGB and bands == 4 else ()
        return cls(
            bits=bits,
            formats=several(_FORMAT, (_UNSIGNED,)),
            photometric=photometric,
            extra=several(_EXTRA, untold),
            planar=several(_PLANES, (1,))[0] == _APART and bands > 1,
            reversed=several(_FILL_ORDER, (1,))[0] == _LOW_BITS_FIRST,
            compression=several(_COMPRESSION, (1,))[0],
        )

    @classmethod
    def of_file(cls, file: BinaryIO, page: int = 0) -> Samples:
        """Those of a page of an open TIFF, whose position is kept.

        Raises:
            tiff.Damaged: if it cannot be read.
        """
        place = file.tell()
        found = Tiff(file)
        tags = found.directory(TAGS.__contains__, found.place(page))
        file.seek(place)
        return cls.of({tag: value.numbers for tag, value in tags.items()})

    @classmethod
    def of_image(cls, image: Image.Image) -> Samples:
        """Those of the page that an open TIFF is at."""
        tags = getattr(image, "tag_v2", {})
        found = {tag: tags[tag] for tag in TAGS if tag in tags}
        return cls.of({k: v if isinstance(v, tuple) else (v,) for k, v in found.items()})

    @property
    def has_alpha(self) -> bool:
        """Whether the first band beyond the colours is alpha."""
        return bool(self.extra) and self.extra[0] != _UNSPECIFIED

    @property
    def left_out(self) -> int:
        """Bands that are neither colour nor alpha."""
        return len(self.extra) - self.has_alpha

    @property
    def right_in_memory(self) -> bool:
        """Whether Pillow, if it decodes them, decodes them right."""
        if self.compression in _NOT_IN_MEMORY:
            return False
        if self.planar and (len(self.bits) == 2 or self.extra not in ((), (_ALPHA,))):
            return False
        if self.reversed and (
            self.planar
            or self.extra
            or self.photometric == _PALETTE
            or (self.photometric == _INVERTED and self.bits[0] == 8)
        ):
            return False
        if self.bits[0] == 16 and (self.planar or self.photometric == _INVERTED):
            return False
        return self._plain and not self._odd

    @property
    def right_by_rows(self) -> bool:
        """Whether libvips decodes them right."""
        one = len(self.bits) == 1
        if self.compression in _NOT_BY_ROWS or len(self.bits) > 4:
            return False
        if self.planar and len(self.bits) == 2:
            return False
        if self.photometric == _PALETTE and not one:
            return False
        if self.photometric in (_INVERTED, _GRAY) and self.left_out:
            return False
        known = self.photometric in (_INVERTED, _GRAY, _RGB, _PALETTE, _CMYK, _YCBCR)
        depths = (1, 2, 4, 8, 16) if one else (8, 16)
        return self._plain and not self._odd and known and self.bits[0] in depths

    @property
    def _plain(self) -> bool:
        """Whether they are unsigned integers of one size."""
        return set(self.formats) == {_UNSIGNED} and len(set(self.bits)) == 1

    @property
    def _odd(self) -> bool:
        """Whether they are YCbCr of a kind that neither library decodes right."""
        return self.photometric == _YCBCR and bool(self.extra or self.planar or self.reversed)

    def __str__(self) -> str:
        depth = "/".join(str(bits) for bits in dict.fromkeys(self.bits))
        number = _NUMBERS.get(self.formats[0], "") if self.formats else ""
        colours = _COLOURS.get(self.photometric, f"kind {self.photometric} of")
        bands = f" in {len(self.bits)} bands" if len(self.bits) > 1 else ""
        order = ", low bits first" if self.reversed else ""
        planes = ", one band after the other" if self.planar else ""
        packed = _COMPRESSIONS.get(self.compression)
        packing = f", compressed as {packed}" if packed else ""
        return f"{depth}-bit {number}{colours} samples{bands}{planes}{order}{packing}"


def describe(file: BinaryIO, format: str | None) -> str | None:
    """What samples a file has that cannot be opened; None if that cannot be told."""
    try:
        if format == "TIFF":
            return str(Samples.of_file(file))
        if format == "BMP":
            file.seek(0)
            head = file.read(34)
            bits, packing = int.from_bytes(head[28:30], "little"), head[30]
            return f"{bits} bits per pixel, packed in way {packing}"
    except (Damaged, IndexError):
        pass
    return None
