"""Picture files read by rows: what `image_io.read_image` gives, without the whole in memory.

libvips decodes from top to bottom. A picture that its orientation turns must be complete before
its first upright row is known: its pixels go through a temporary file that has no name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from dvmsr.errors import DvmsrError
from dvmsr.paths import check_input, unreadable
from dvmsr.runtime.image_io import damaged, many_frames
from dvmsr.runtime.vips import import_vips

_LOADERS = {
    b"\x89PNG\r\n\x1a\n": "pngload",
    b"\xff\xd8\xff": "jpegload",
    b"II*\0": "tiffload",
    b"MM\0*": "tiffload",
    b"II+\0": "tiffload",
    b"MM\0+": "tiffload",
    b"RIFF": "webpload",
}
"""libvips' decoder of files that begin so."""
FORMATS_READ = "PNG, JPEG, WebP or TIFF"

_MODES = {
    "b-w": ("L", "LA"),
    "grey16": ("L", "LA"),
    "srgb": ("RGB", "RGBA"),
    "rgb16": ("RGB", "RGBA"),
    "cmyk": ("CMYK",),
}
"""Pillow's modes for libvips' interpretations, with as many bands as the first one and more."""
_EXTRA_SAMPLES, _UNSPECIFIED = 338, 0
"""The tag of a TIFF that tells what the fourth band is, and that it is not alpha (TIFF 6.0, section
18). libvips itself divides colours that are multiplied by alpha."""
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""What makes a picture with that EXIF orientation upright: rows and columns exchanged, then the
rows reversed, then the columns (EXIF 2.3, tag 0x0112)."""

_ROWS_COPIED = 64

_Fetch = Callable[[int, int], NDArray[Any]]
"""First row and number of rows -> (rows, W, bands)."""


class RowReader:
    """An upright picture in a file, of mode RGB, L, RGBA or LA; `open_rows` makes one."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._scratch = scratch
        self._image = _header(path)
        self._file_mode = _file_mode(self._image, path)
        orientation = self._image.get("orientation") if self._has("orientation") else 1
        self._turn = _TURNS.get(orientation, (False, False, False))
        self.height: int = self._image.height
        self.width: int = self._image.width
        if self._turn[0]:
            self.height, self.width = self.width, self.height
        self.mode: str = {"CMYK": "RGB", "RGBX": "RGB"}.get(self._file_mode, self._file_mode)
        self.profile: bytes | None = None
        """The colour profile."""
        if self._has("icc-profile-data") and self._file_mode != "CMYK":
            self.profile = self._image.get("icc-profile-data")
        self._warn()

    @property
    def held(self) -> int:
        """Bytes that the decoder needs beyond some rows: for interlaced PNG, progressive JPEG and
        WebP the whole picture."""
        image = self._image
        whole = self._has("interlaced") or image.get("vips-loader").startswith("webp")
        return 2 * image.width * image.height * image.bands if whole else 0

    def strips(self, rows: int) -> Iterator[Image.Image]:
        """The picture's rows from top to bottom, so many at a time; may be called again.

        Raises:
            DvmsrError: if the file is damaged or truncated, or has to be turned and there is no
                space for that.
        """
        across, upside_down, mirrored = self._turn
        stored = across or upside_down
        with self._stored() if stored else nullcontext(self._sequential()) as fetch:
            for start in range(0, self.height, rows):
                count = min(rows, self.height - start)
                first = self.height - start - count if upside_down else start
                strip = fetch(first, count)
                strip = strip[::-1] if upside_down else strip
                strip = strip[:, ::-1] if mirrored else strip
                yield self._picture(np.ascontiguousarray(strip))

    def _sequential(self) -> _Fetch:
        """The rows as they are stored, for one pass from top to bottom."""
        vips = import_vips()
        try:
            region = vips.Region.new(_header(self.path))
        except vips.Error:
            raise damaged(str(self.path)) from None
        image = self._image
        dtype = np.uint8 if image.format == "uchar" else np.uint16

        def fetch(start: int, count: int) -> NDArray[Any]:
            try:
                data = region.fetch(0, start, image.width, count)
            except vips.Error:
                raise damaged(str(self.path)) from None
            pixels: NDArray[Any] = np.frombuffer(data, dtype)
            return _eight_bits(pixels.reshape(count, image.width, image.bands))

        return fetch

    @contextmanager
    def _stored(self) -> Iterator[_Fetch]:
        """Rows, or columns if these are exchanged, in any order."""
        height, width, bands = self._image.height, self._image.width, self._image.bands
        needed, free = height * width * bands, shutil.disk_usage(self._scratch).free
        if needed > free:
            raise DvmsrError(
                f"{self.path} is stored turned, and turning it needs {needed / 1e9:.1f} GB in "
                f"{self._scratch} where {free / 1e9:.1f} GB are free; make room or write the "
                "result elsewhere"
            )
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            fetch = self._sequential()
            for start in range(0, height, _ROWS_COPIED):
                file.write(fetch(start, min(_ROWS_COPIED, height - start)).tobytes())
            file.flush()
            across = self._turn[0]
            yield (
                lambda start, count: (
                    _columns(file, height, width, bands, start, count)
                    if across
                    else _block(file, (count, width, bands), start * width * bands)
                )
            )

    def _picture(self, pixels: NDArray[np.uint8]) -> Image.Image:
        height, width, _ = pixels.shape
        strip = Image.frombytes(self._file_mode, (width, height), pixels)
        return strip if self._file_mode == self.mode else strip.convert(self.mode)

    def _has(self, field: str) -> bool:
        return bool(self._image.get_typeof(field))

    def _warn(self) -> None:
        if self._image.format == "ushort":
            warnings.warn(f"{self.path}: 16 bits per channel are reduced to 8", stacklevel=4)
        if self._file_mode == "CMYK":
            warnings.warn(
                f"{self.path}: CMYK is converted to RGB, colours are approximate", stacklevel=4
            )


def open_rows(path: Path, scratch: Path) -> RowReader:
    """Look into a PNG, JPEG, WebP or TIFF file.

    Warns as `image_io.normalise` does of what changes.

    Args:
        scratch: a folder for what has to be turned.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it cannot be read by rows.
        MissingComponentError: if libvips is missing.
    """
    import_vips()
    check_input(path)
    return RowReader(path, scratch)


def reads(path: Path) -> bool:
    """Whether a file begins as those that can be read by rows do."""
    return _loader(path) is not None


def _loader(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise unreadable(path, error) from None
    return next((name for magic, name in _LOADERS.items() if start.startswith(magic)), None)


def _header(path: Path) -> Any:
    """The picture, to be decoded from top to bottom; no pixel is decoded yet."""
    vips, loader = import_vips(), _loader(path)
    if loader is None:
        raise DvmsrError(f"{path} cannot be read by rows; convert it to {FORMATS_READ}")
    try:
        return getattr(vips.Image, loader)(os.fspath(path), access="sequential", fail_on="error")
    except vips.Error:
        raise damaged(str(path)) from None


def _file_mode(image: Any, path: Path) -> str:
    """Pillow's mode for the pixels as libvips gives them, reduced to 8 bits."""
    if image.get_typeof("n-pages") and image.get("n-pages") > 1:
        raise many_frames(str(path), image.get("n-pages"))
    modes = _MODES.get(image.interpretation, ())
    mode = {len(Image.new(mode, (1, 1)).getbands()): mode for mode in modes}.get(image.bands)
    if mode is None or image.format not in ("uchar", "ushort"):
        raise DvmsrError(
            f"{path} has pixels of type {image.interpretation} ({image.bands} x {image.format}); "
            "convert it to 8-bit RGB first"
        )
    if mode == "RGBA" and image.get("vips-loader").startswith("tiff"):
        with path.open("rb") as file, TiffImageFile(file) as header:
            alpha = header.tag_v2.get(_EXTRA_SAMPLES, (_UNSPECIFIED,))[0] != _UNSPECIFIED
            return mode if alpha else "RGBX"
    return mode


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """As `image_io.normalise`: gray values are rounded, of colours Pillow reads the high byte."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.shape[2] == 1:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return (pixels >> 8).astype(np.uint8)


def _block(file: BinaryIO, shape: tuple[int, int, int], offset: int) -> NDArray[np.uint8]:
    block = np.empty(shape, np.uint8)
    file.seek(offset)
    file.readinto(block)  # type: ignore[attr-defined]
    return block


def _columns(
    file: BinaryIO, height: int, width: int, bands: int, start: int, count: int
) -> NDArray[np.uint8]:
    """(count, height, bands): the columns of a stored picture as rows."""
    block = np.empty((height, count, bands), np.uint8)
    for y in range(height):
        os.preadv(file.fileno(), [block[y]], (y * width + start) * bands)
    return block.transpose(1, 0, 2)
