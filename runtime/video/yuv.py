"""Between the planes of a frame, luma and chroma, and RGB pixels; FP32 within, rounded once.

FFmpeg's converter is used for packing alone: from YUV to RGB and back it is off by up to 5 of 1023
steps at 10 bits (with every flag for accuracy set), and takes no notice of where chroma samples
lie. Here those of 4:2:0 and 4:2:2 lie at even columns and, of 4:2:0, between two rows, as in
MPEG-2, H.264, HEVC and VP9 unless they say otherwise. Chroma is interpolated linearly, and
averaged with weights 1, 2, 1 along rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Planes = tuple[NDArray[Any], ...]
"""Luma (H, W) and two of chroma, or three of full size: green, blue and red; uint8 or uint16."""

_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
}
"""Weights of red and blue by the number that H.273 gives a matrix."""
MATRICES = tuple(_LUMA_WEIGHTS)
BT709, BT601, UNSPECIFIED = 1, 6, 2

_ROWS = 256
"""Of a result that are converted at once, so that FP32 copies stay small; even."""


@dataclass(frozen=True)
class Layout:
    """How pixels are stored in planes."""

    kind: str
    """`yuv`, `gray` or `rgb`."""
    bits: int
    """Per sample: 8, 10, 12 or 16."""
    halved: tuple[bool, bool] = (False, False)
    """Whether chroma has half the rows, half the columns."""

    @property
    def name(self) -> str:
        """FFmpeg's."""
        depth = "" if self.bits == 8 else f"{self.bits}le"
        if self.kind == "yuv":
            subsampling = {(True, True): "420", (False, True): "422"}.get(self.halved, "444")
            return f"yuv{subsampling}p{depth}"
        return {"gray": "gray", "rgb": "gbrp"}[self.kind] + depth

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        return np.uint8 if self.bits == 8 else np.uint16

    def shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of each plane of a picture of that size."""
        halve_rows, halve_columns = self.halved
        chroma = (height + halve_rows) >> halve_rows, (width + halve_columns) >> halve_columns
        return [(height, width)] if self.kind == "gray" else [(height, width), chroma, chroma]


@dataclass(frozen=True)
class Coding:
    """What the numbers in the planes mean."""

    layout: Layout
    matrix: int = BT709
    """One of `MATRICES`."""
    full: bool = False
    """Whether they use the full range, rather than 16 to 235 of 255."""

    @property
    def _luma(self) -> tuple[float, float]:
        """Number of black and steps to white."""
        if self.full or self.layout.kind == "rgb":
            return 0, 2**self.layout.bits - 1
        return 16 * 2 ** (self.layout.bits - 8), 219 * 2 ** (self.layout.bits - 8)

    @property
    def _chroma(self) -> tuple[float, float]:
        """Number of gray and steps over the whole range."""
        middle = 2 ** (self.layout.bits - 1)
        return middle, 2 * middle - 1 if self.full else 224 * 2 ** (self.layout.bits - 8)

    def _to_yuv(self) -> NDArray[np.float64]:
        """(3, 3): R, G, B in [0, 1] -> Y in [0, 1], Cb and Cr in [-1/2, 1/2]."""
        red, blue = _LUMA_WEIGHTS[self.matrix]
        luma = np.array([red, 1 - red - blue, blue])
        cb = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
        cr = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
        return np.stack([luma, cb, cr])

    def to_rgb(self, planes: Planes) -> NDArray[np.uint16]:
        """The pixels as RGB (H, W, 3) over the range of 16 bits; what lies outside is clipped."""
        zero, steps = self._luma
        if self.layout.kind == "rgb":
            green, blue, red = (plane / np.float32(steps) for plane in planes)
            rgb = np.stack([red, green, blue], -1)
        else:
            height, width = planes[0].shape
            yuv = [(planes[0] - np.float32(zero)) / np.float32(steps)]
            middle, span = self._chroma
            for plane in planes[1:]:
                chroma = (plane - np.float32(middle)) / np.float32(span)
                yuv.append(_enlarged(chroma, self.layout.halved)[:height, :width])
            if self.layout.kind == "gray":
                rgb = np.stack(yuv * 3, -1)
            else:
                rgb = np.stack(yuv, -1) @ np.linalg.inv(self._to_yuv()).astype(np.float32).T
        return np.rint(np.clip(rgb, 0, 1) * 65535).astype(np.uint16)

    def from_rgb(self, pixels: NDArray[np.uint16]) -> Planes:
        """The planes for RGB pixels (H, W, 3) over the range of 16 bits."""
        shapes = self.layout.shapes(*pixels.shape[:2])
        planes = tuple(np.empty(shape, self.layout.dtype) for shape in shapes)
        for start in range(0, pixels.shape[0], _ROWS):
            for number, values in enumerate(self._coded(pixels[start : start + _ROWS])):
                first = start >> (number > 0 and self.layout.halved[0])
                rounded = np.clip(np.rint(values), 0, 2**self.layout.bits - 1)
                planes[number][first : first + len(rounded)] = rounded
        return planes

    def _coded(self, pixels: NDArray[np.uint16]) -> Iterator[NDArray[np.float32]]:
        """The planes of some rows before rounding."""
        rgb = pixels / np.float32(65535)
        zero, steps = map(np.float32, self._luma)
        if self.layout.kind == "rgb":
            yield from (rgb[..., channel] * steps for channel in (1, 2, 0))
            return
        yuv = rgb @ self._to_yuv().astype(np.float32).T
        yield yuv[..., 0] * steps + zero
        if self.layout.kind == "yuv":
            middle, span = map(np.float32, self._chroma)
            for channel in (1, 2):
                yield _reduced(yuv[..., channel], self.layout.halved) * span + middle


def _enlarged(chroma: NDArray[np.float32], halved: tuple[bool, bool]) -> NDArray[np.float32]:
    """Chroma at every row and column; up to one of each more than the picture has."""
    if halved[1]:
        following = np.concatenate([chroma[:, 1:], chroma[:, -1:]], 1)
        chroma = np.stack([chroma, (chroma + following) / 2], 2).reshape(len(chroma), -1)
    if halved[0]:
        above = np.concatenate([chroma[:1], chroma[:-1]])
        below = np.concatenate([chroma[1:], chroma[-1:]])
        pair = np.stack([(3 * chroma + above) / 4, (3 * chroma + below) / 4], 1)
        chroma = pair.reshape(-1, chroma.shape[1])
    return chroma


def _reduced(chroma: NDArray[np.float32], halved: tuple[bool, bool]) -> NDArray[np.float32]:
    """Chroma at the rows and columns where it is stored, edges repeated."""
    if halved[0]:
        last = chroma[len(chroma) // 2 * 2 :]
        upper, lower = chroma[0::2], np.concatenate([chroma[1::2], last])
        chroma = (upper + lower) / 2
    if halved[1]:
        even, odd = chroma[:, 0::2], chroma[:, 1::2]
        before = np.concatenate([chroma[:, :1], odd], 1)[:, : even.shape[1]]
        after = np.concatenate([odd, chroma[:, -1:]], 1)[:, : even.shape[1]]
        chroma = (before + 2 * even + after) / 4
    return chroma
