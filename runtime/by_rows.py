"""A picture from file to file by rows, so that no size of it has to fit into memory."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.runtime import vips
from dvmsr.runtime.atomic import replacing
from dvmsr.runtime.cutout import EnlargedAlpha, extended_strips
from dvmsr.runtime.image_io import (
    FLAT,
    TooManyPixels,
    check_format,
    check_sides,
    fitting_profile,
    flatten,
    measure,
    warn_of_white,
)
from dvmsr.runtime.row_reader import FORMATS_READ, RowReader, open_rows, reads
from dvmsr.runtime.row_writer import FORMATS_WRITTEN, writing_rows

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler


@dataclass(frozen=True)
class Prepared:
    """A picture that is looked into; sizes are width and height in pixels."""

    reader: RowReader
    target: Path
    size: tuple[int, int]
    enlarged_size: tuple[int, int]
    strip: int
    """Rows that are computed at once."""


def wanted(upscaler: Upscaler, source: Path, target: Path) -> bool:
    """Whether a picture goes by rows: if it does not fit into memory as a whole (see
    `Upscaler.fits`), or a height of strips is given; as far as its formats and libvips allow that.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it is no picture, or can be processed neither way.
        MissingComponentError: if it needs libvips, which is missing.
    """
    try:
        height, width = measure(source)
    except TooManyPixels:
        if not upscaler.network.streams:
            raise
        obstacle = _obstacle(source, target)
        if obstacle is not None:
            raise obstacle from None
        return True
    if not upscaler.network.streams:
        return False
    obstacle = _obstacle(source, target)
    if obstacle is None:
        return upscaler.strip is not None or not upscaler.fits(height, width)
    try:
        upscaler.check_memory(height, width, str(source))
    except DvmsrError:
        raise obstacle from None
    return False


def _obstacle(source: Path, target: Path) -> DvmsrError | None:
    """Why a picture cannot go by rows."""
    whole = f"{source} does not fit into memory as a whole"
    format = check_format(target)
    if not reads(source):
        return DvmsrError(f"{whole}, nor is it read by rows; convert it to {FORMATS_READ}")
    if format not in FORMATS_WRITTEN:
        return DvmsrError(f"{whole}, nor is {format} written by rows; choose .tif or .png with -o")
    if not vips.installed():
        return MissingComponentError(
            f"{whole}, and reading it by rows needs pyvips: pip install 'dvmsr[large]'"
        )
    return None


def prepare(upscaler: Upscaler, source: Path, target: Path) -> Prepared:
    """Look into a picture that goes by rows.

    Raises:
        DvmsrError: if it cannot be read, its result cannot be written so, or memory is too small.
    """
    scale = upscaler.scale
    reader = open_rows(source, Path(os.path.realpath(target)).parent)
    height, width = reader.height, reader.width
    check_sides(target, scale * height, scale * width)
    upscaler.check_memory(height, width, str(source), reader.held)
    strip = upscaler.rows_at_once(height, width, reader.held)
    return Prepared(reader, target, (width, height), (scale * width, scale * height), strip)


def enlarge(
    upscaler: Upscaler,
    picture: Prepared,
    overwrite: bool,
    show_rows: Callable[[int, int], None],
) -> None:
    """Read, enlarge and write a picture.

    Args:
        show_rows: called with the rows of the input that are done, and their number, now and then.

    Raises:
        DvmsrError: if any of that fails; no output is then left behind.
    """
    reader, target = picture.reader, picture.target
    format = check_format(target)
    mode = reader.mode.removesuffix("A") if format in FLAT else reader.mode
    profile = fitting_profile(reader.profile, format, mode, target)
    size = picture.enlarged_size[::-1]
    _warn_of_space(target, size[0] * size[1] * len(Image.new(mode, (1, 1)).getbands()))
    done = 0
    with (
        replacing(target, overwrite) as temporary,
        writing_rows(temporary, format, str(target), *size, mode, profile) as out,
    ):
        white = False
        for rows in _enlarged_rows(upscaler, reader, picture.strip):
            if mode != reader.mode:
                if not white and rows.getchannel("A").getextrema() != (255, 255):
                    white = True
                    warn_of_white(target, format)
                rows = flatten(rows)
            out.write(_bands(rows))
            done += rows.height // upscaler.scale
            show_rows(done, reader.height)


def _enlarged_rows(upscaler: Upscaler, reader: RowReader, strip: int) -> Iterator[Image.Image]:
    """The result's rows, in the picture's mode, as `Upscaler` makes of the whole picture."""
    alpha = EnlargedAlpha(upscaler.scale) if reader.mode.endswith("A") else None

    def colours() -> Iterator[NDArray[np.uint8]]:
        if alpha is None:
            pictures = reader.strips(strip)
        else:
            pictures = extended_strips(reader.strips, reader.height, strip, alpha.add)
        for picture in pictures:
            yield np.asarray(picture.convert("RGB"))

    for pixels in upscaler.stream(colours(), reader.height, reader.width):
        picture = Image.fromarray(pixels)
        if reader.mode in ("L", "LA"):
            picture = picture.convert("L")
        if alpha is not None:
            picture.putalpha(alpha.take(picture.height // upscaler.scale))
        yield picture


def _bands(picture: Image.Image) -> NDArray[np.uint8]:
    """(rows, W, bands)."""
    pixels = np.asarray(picture)
    return pixels.reshape(*pixels.shape[:2], -1)


def _warn_of_space(target: Path, pixels: int) -> None:
    """Tell that a result of so many bytes of pixels may not fit; compressed it is smaller."""
    folder = Path(os.path.realpath(target)).parent
    free = shutil.disk_usage(folder).free
    if free < pixels:
        warnings.warn(
            f"{target} may need up to {pixels / 1e9:.1f} GB where {free / 1e9:.1f} GB are free; "
            "make room before it is too late",
            stacklevel=2,
        )
