"""How JPEG files are compressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of the quality 50 (ITU-T T.81, table K.1)."""
_RGB_STORED = 0
"""Adobe's number for colours that are not stored as YCbCr."""


@dataclass(frozen=True)
class Jpeg:
    """Compression of a gray or YCbCr JPEG."""

    tables: tuple[tuple[int, ...], ...]
    """Quantisation steps, for luminance and, of colours, for chrominance."""
    sampling: int
    """Of the chrominance, as Pillow numbers them: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0."""
    progressive: bool

    @classmethod
    def of(cls, image: Image.Image) -> Jpeg | None:
        """That of an open file; None if it is another format, or RGB or CMYK."""
        tables = getattr(image, "quantization", None)
        if not tables or image.mode not in ("RGB", "L"):
            return None
        if image.info.get("adobe_transform") == _RGB_STORED and image.mode == "RGB":
            return None
        sampling = JpegImagePlugin.get_sampling(image)
        ordered = tuple(tuple(tables[key]) for key in sorted(tables))
        return cls(ordered, max(sampling, 0), bool(image.info.get("progressive")))

    @property
    def quality(self) -> int:
        """From 1 to 100: that whose luminance steps are nearest, as libjpeg computes them."""
        standard = np.array(_LUMINANCE)
        best, least = 100, float("inf")
        for quality in range(1, 101):
            percent = 5000 // quality if quality < 50 else 200 - 2 * quality
            steps = np.clip((standard * percent + 50) // 100, 1, 255)
            distance = abs(int(steps.sum()) - sum(self.tables[0]))
            if distance < least:
                best, least = quality, distance
        return best

    def save_options(self) -> dict[str, Any]:
        """What Pillow's `save` takes to compress a picture likewise."""
        return {
            "qtables": [list(table) for table in self.tables],
            "subsampling": self.sampling,
            "progressive": self.progressive,
        }


def iptc_blocks(iptc: bytes) -> bytes:
    """IPTC data as Photoshop's image resource 0x0404, with the head that JPEG files want."""
    if not iptc:
        return b""
    padded = iptc + b"\0" * (len(iptc) % 2)
    return b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + padded


def iptc_marker(iptc: bytes) -> bytes:
    """IPTC data as a marker of a JPEG."""
    blocks = iptc_blocks(iptc)
    return b"\xff\xed" + (len(blocks) + 2).to_bytes(2, "big") + blocks
