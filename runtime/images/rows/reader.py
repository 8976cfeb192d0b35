"""Picture files read by rows: what `picture.read_picture` gives, without the whole in memory, and
16 bits per channel as they are.

libvips decodes from top to bottom. A picture that its orientation turns must be complete before
its first upright row is known: its pixels go through a temporary file that has no name.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images import frames, icc
from dvmsr.runtime.images.decode import damaged, many_frames, open_picture, warn_of_bands
from dvmsr.runtime.images.metadata import EMPTY, Metadata, orientation, read_metadata
from dvmsr.runtime.images.rows.vips import import_vips, source
from dvmsr.runtime.images.samples import Samples
from dvmsr.runtime.images.tiff import Damaged
from dvmsr.utils.paths import check_input, unreadable
from dvmsr.utils.sizes import in_words

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
FORMATS_READ = "PNG, JPEG, WebP or TIFF of 8 or 16 bits"

_MODES = {
    "b-w": ("L", "LA"),
    "grey16": ("L", "LA"),
    "srgb": ("RGB", "RGBA"),
    "rgb16": ("RGB", "RGBA"),
    "cmyk": ("CMYK",),
}
"""Pillow's modes for libvips' interpretations, with as many bands as the first one and more."""
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

    def __init__(self, path: Path, scratch: Path, srgb: bool = False) -> None:
        self.path = path
        self._scratch = scratch
        loader = _loader(path)
        if loader is None:
            raise DvmsrError(f"{path} cannot be read by rows; convert it to {FORMATS_READ}")
        page, samples = _only_picture(path, loader)
        self._open = partial(_header, path, loader, page)
        self._image = image = self._open()
        self._file_mode = _file_mode(image, path, samples)
        self.metadata, orientation = _told(path)
        self._turn = _TURNS.get(orientation, (False, False, False))
        self.height: int = image.height
        self.width: int = image.width
        if self._turn[0]:
            self.height, self.width = self.width, self.height
        self.mode: str = {"CMYK": "RGB", "RGBX": "RGB"}.get(self._file_mode, self._file_mode)
        self.dtype: type = np.uint8 if image.format == "uchar" else np.uint16
        embedded = image.get("icc-profile-data") if self._has("icc-profile-data") else None
        colours = icc.decide(self._file_mode.replace("X", ""), embedded, srgb)
        for told in colours.warnings:
            warnings.warn(f"{path}: {told}", stacklevel=3)
        self.profile: bytes | None = colours.profile
        """The colour profile of what `strips` gives."""
        self._to_srgb = colours.source is not None
        if self._to_srgb:
            self._file_mode = self._file_mode.replace("CMYK", "RGB")

    @property
    def held(self) -> int:
        """Bytes that the decoder needs beyond some rows: for interlaced PNG, progressive JPEG and
        WebP the whole picture."""
        image = self._image
        whole = self._has("interlaced") or image.get("vips-loader").startswith("webp")
        return 2 * image.width * image.height * self._bytes * whole

    def strips(self, rows: int) -> Iterator[NDArray[Any]]:
        """The picture's rows from top to bottom, so many at a time; may be called again.

        Yields:
            (rows, W, bands), uint8 or uint16.

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
                yield self._in_mode(np.ascontiguousarray(strip))

    @property
    def _bands(self) -> int:
        """Of the rows as they are stored."""
        return len(Image.new(self._file_mode, (1, 1)).getbands())

    @property
    def _bytes(self) -> int:
        """Of a stored pixel."""
        return self._bands * np.dtype(self.dtype).itemsize

    def _sequential(self) -> _Fetch:
        """The rows as they are stored, for one pass from top to bottom."""
        vips = import_vips()
        try:
            image = self._open()
            if self._to_srgb:
                image = self._in_srgb(image)
            region = vips.Region.new(image)
        except vips.Error:
            raise damaged(str(self.path)) from None

        def fetch(start: int, count: int) -> NDArray[Any]:
            try:
                data = region.fetch(0, start, image.width, count)
            except vips.Error:
                raise damaged(str(self.path)) from None
            pixels: NDArray[Any] = np.frombuffer(data, self.dtype)
            return pixels.reshape(count, image.width, self._bands)

        return fetch

    def _in_srgb(self, image: Any) -> Any:
        image = image.icc_transform(
            "srgb",
            embedded=True,
            intent="relative",
            black_point_compensation=True,
            depth=8 * np.dtype(self.dtype).itemsize,
        )
        if self._file_mode == "L":
            return image[0]
        return image[0].bandjoin(image[image.bands - 1]) if self._file_mode == "LA" else image

    @contextmanager
    def _stored(self) -> Iterator[_Fetch]:
        """Rows, or columns if these are exchanged, in any order."""
        height, width, bands = self._image.height, self._image.width, self._bands
        needed, free = height * width * self._bytes, shutil.disk_usage(self._scratch).free
        if needed > free:
            raise DvmsrError(
                f"{self.path} is stored turned, and turning it needs {in_words(needed)} in "
                f"{self._scratch} where {in_words(free)} are free; make room or write the "
                "result elsewhere"
            )
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            fetch = self._sequential()
            for start in range(0, height, _ROWS_COPIED):
                file.write(fetch(start, min(_ROWS_COPIED, height - start)).tobytes())
            file.flush()

            def rows(start: int, count: int) -> NDArray[Any]:
                block = np.empty((count, width, bands), self.dtype)
                file.seek(start * width * self._bytes)
                file.readinto(memoryview(block))  # type: ignore[arg-type]
                return block

            def columns(start: int, count: int) -> NDArray[Any]:
                block = np.empty((height, count, bands), self.dtype)
                for y in range(height):
                    os.preadv(file.fileno(), [block[y]], (y * width + start) * self._bytes)
                return block.transpose(1, 0, 2)

            yield columns if self._turn[0] else rows

    def _in_mode(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Stored rows in the picture's mode."""
        if self._file_mode == "RGBX":
            return pixels[..., :3]
        if self._file_mode == "CMYK":
            height, width, _ = pixels.shape
            if self.dtype != np.uint8:
                light = 65535 - pixels.astype(np.uint32)
                return ((light[..., :3] * light[..., 3:] + 32767) // 65535).astype(np.uint16)
            inks = Image.frombytes("CMYK", (width, height), pixels.tobytes())
            return np.asarray(inks.convert("RGB"))
        return pixels

    def _has(self, field: str) -> bool:
        return bool(self._image.get_typeof(field))


def open_rows(path: Path, scratch: Path, srgb: bool = False) -> RowReader:
    """Look into a PNG, JPEG, WebP or TIFF file.

    Warns as `decode.normalise` does of what changes.

    Args:
        scratch: a folder for what has to be turned.
        srgb: whether to convert what has another colour profile to sRGB.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it cannot be read by rows.
        MissingComponentError: if libvips is missing.
    """
    import_vips()
    check_input(path)
    return RowReader(path, scratch, srgb)


def reads(path: Path) -> bool:
    """Whether a file begins as those that can be read by rows do, and, of a TIFF, has such
    samples."""
    loader = _loader(path)
    if loader != "tiffload":
        return loader is not None
    with path.open("rb") as file:
        try:
            return Samples.of_file(file, frames.pages(file)[0]).right_by_rows
        except Damaged:
            return True  # what is wrong with it is told when it is opened


def _loader(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise unreadable(path, error) from None
    return next((name for magic, name in _LOADERS.items() if start.startswith(magic)), None)


def _header(path: Path, loader: str, page: int) -> Any:
    """The picture, to be decoded from top to bottom; no pixel is decoded yet."""
    vips, options, file = import_vips(), {"page": page} if page else {}, source(path)
    load = getattr(vips.Image, f"{loader}_source")
    try:
        image = load(file, access="sequential", fail_on="error", **options)
    except vips.Error:
        raise damaged(str(path)) from None
    image._references.append(file)  # as pyvips itself does, in `new_from_source`
    return image


def _file_mode(image: Any, path: Path, samples: Samples | None) -> str:
    """Pillow's mode for the pixels as libvips gives them; of 16 bits, too."""
    modes = _MODES.get(image.interpretation, ())
    mode = {len(Image.new(mode, (1, 1)).getbands()): mode for mode in modes}.get(image.bands)
    if mode is None or image.format not in ("uchar", "ushort"):
        raise DvmsrError(
            f"{path} has pixels of type {image.interpretation} ({image.bands} x {image.format}); "
            "convert it to 8-bit RGB first"
        )
    if mode == "RGBA" and samples is not None and not samples.has_alpha:
        if samples.left_out:
            warn_of_bands(str(path), samples.left_out)
        return "RGBX"
    return mode


def _only_picture(path: Path, loader: str) -> tuple[int, Samples | None]:
    """The number of the page in a file that is no smaller copy of another, and, of a TIFF, what its
    samples are."""
    samples: Samples | None = None
    found: Sequence[int]
    with path.open("rb") as file:
        if loader == "tiffload":
            try:
                found = frames.pages(file)
                samples = Samples.of_file(file, found[0])
            except Damaged:
                raise damaged(str(path)) from None
        else:
            try:
                with open_picture(file, str(path), bounded=False) as image:
                    found = frames.numbers(image, file)
            except Damaged:
                raise damaged(str(path)) from None
    if len(found) > 1:
        raise many_frames(str(path), len(found))
    if samples is not None and not samples.right_by_rows:
        raise DvmsrError(
            f"{path} has {samples}, which are not read by rows; convert it to {FORMATS_READ}"
        )
    return found[0], samples


def eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels of type uint8 or uint16, rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _told(path: Path) -> tuple[Metadata, int]:
    """Metadata and orientation, which may lie in EXIF data, XMP or a PNG's text; Pillow reads them
    from the file's beginning, whatever the size of the picture."""
    with path.open("rb") as file:
        try:
            with open_picture(file, str(path), bounded=False) as image:
                metadata = read_metadata(image, file, str(path))
                with suppress(Exception):  # as above, and it is told already
                    return metadata, orientation(image, file)
                return metadata, 1
        except Exception:  # damaged bytes can make Pillow raise anything
            warnings.warn(f"{path}: its metadata is damaged and left out", stacklevel=4)
            return EMPTY, 1
