"""A picture from file to file by rows, by libvips: of any size, and with 16 bits per channel."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.runtime.images import frames
from dvmsr.runtime.images.decode import TooManyPixels, damaged, depth, open_picture
from dvmsr.runtime.images.encode import flatten, warn_of_white
from dvmsr.runtime.images.formats import FLAT, check_format, check_sides
from dvmsr.runtime.images.metadata import tell_left_out
from dvmsr.runtime.images.rows import vips
from dvmsr.runtime.images.rows.alpha import EnlargedAlpha, extended_strips
from dvmsr.runtime.images.rows.reader import FORMATS_READ, RowReader, eight_bits, open_rows, reads
from dvmsr.runtime.images.rows.writer import FORMATS_WRITTEN, writing_rows
from dvmsr.utils import threads
from dvmsr.utils.atomic import replacing
from dvmsr.utils.paths import check_input, unreadable
from dvmsr.utils.sizes import in_words

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler


DEEP = ("PNG", "TIFF")
"""Formats that hold 16 bits per channel."""
_LIBRARY_THREADS, _OTHER_THREADS = 2, 4
"""What libvips starts, for each processor to read and to write, and a few, as measured from above;
it ends the process where it cannot."""
_GRAY = np.array([0.299, 0.587, 0.114])
"""Luma of ITU-R BT.601, as Pillow's."""


@dataclass(frozen=True)
class Encoding:
    """How results are to be written."""

    quality: int | None = None
    """As of `picture.encode_picture`."""
    to_srgb: bool = False
    """Whether colours with another profile are converted to sRGB."""


@dataclass(frozen=True)
class Prepared:
    """A picture that is looked into; sizes are width and height in pixels."""

    reader: RowReader
    target: Path
    encoding: Encoding
    size: tuple[int, int]
    enlarged_size: tuple[int, int]
    strip: int
    """Rows that are computed at once."""


def wanted(upscaler: Upscaler, source: Path, target: Path) -> bool:
    """Whether a picture goes by rows: if it does not fit into memory as a whole (see
    `Upscaler.fits`), a height of strips is given, or it has 16 bits per channel; as far as its
    formats and libvips allow that.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it is no picture, or can be processed neither way.
        MissingComponentError: if it needs libvips, which is missing.
    """
    try:
        height, width, count, deep = _look(source)
    except TooManyPixels:
        if not upscaler.network.streams:
            raise
        obstacle = _obstacle(source, target)
        if obstacle is not None:
            raise obstacle from None
        return True
    if count > 1:
        return False
    if deep and _obstacle(source, target) is None:
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


def _look(path: Path) -> tuple[int, int, int, bool]:
    """Height and width of a picture as it is stored, the number of frames or pages, and whether it
    has 16 bits per channel; nothing is decoded."""
    check_input(path)
    try:
        with path.open("rb") as file, open_picture(file, str(path)) as image:
            numbers = frames.numbers(image, file)
            count = len(numbers)
            if numbers[0]:
                image.seek(numbers[0])
            return image.height, image.width, count, count == 1 and depth(image) == 16
    except DvmsrError:
        raise
    except OSError as error:
        if error.errno is None:
            raise damaged(str(path)) from None
        raise unreadable(path, error) from None
    except Exception:  # damaged bytes can make Pillow raise anything
        raise damaged(str(path)) from None


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


def prepare(
    upscaler: Upscaler, source: Path, target: Path, encoding: Encoding = Encoding()
) -> Prepared:
    """Look into a picture that goes by rows.

    Raises:
        DvmsrError: if it cannot be read, its result cannot be written so, or memory is too small.
    """
    scale = upscaler.scale
    threads.check(_LIBRARY_THREADS * threads.cores() + _OTHER_THREADS)
    reader = open_rows(source, Path(os.path.realpath(target)).parent, encoding.to_srgb)
    height, width = reader.height, reader.width
    check_sides(target, scale * height, scale * width)
    held = reader.held if upscaler.network.streams else None
    upscaler.check_memory(height, width, str(source), held)
    strip = upscaler.rows_at_once(height, width, held)
    size, enlarged_size = (width, height), (scale * width, scale * height)
    return Prepared(reader, target, encoding, size, enlarged_size, strip)


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
    deep = reader.dtype == np.uint16 and format in DEEP
    if reader.dtype == np.uint16 and not deep:
        warnings.warn(
            f"{target}: 16 bits per channel are reduced to 8 after enlarging, as {format} holds "
            "no more",
            stacklevel=2,
        )
    metadata = reader.metadata.enlarged(upscaler.scale, picture.enlarged_size)
    tell_left_out(target, format, metadata.left_out(format))
    size = picture.enlarged_size[::-1]
    bands = len(Image.new(mode, (1, 1)).getbands())
    _warn_of_space(target, size[0] * size[1] * bands * (2 if deep else 1))
    done = 0
    with (
        replacing(target, overwrite) as temporary,
        writing_rows(
            *(temporary, format, str(target), *size, mode),
            deep=deep,
            profile=reader.profile,
            metadata=metadata.for_format(format),
            quality=picture.encoding.quality,
        ) as out,
    ):
        white = False
        for rows in _enlarged_rows(upscaler, reader, picture.strip):
            done += len(rows) // upscaler.scale
            rows = rows if deep else eight_bits(rows)
            if mode != reader.mode:
                if not white and rows[..., -1].min() < 255:
                    white = True
                    warn_of_white(target, format)
                flat = flatten(Image.fromarray(rows))
                rows = np.asarray(flat).reshape(*rows.shape[:2], -1)
            out.write(rows)
            show_rows(done, reader.height)


def _enlarged_rows(upscaler: Upscaler, reader: RowReader, strip: int) -> Iterator[NDArray[Any]]:
    """The result's rows (some, s*W, bands), in the picture's mode and type, as `Upscaler` makes of
    the whole picture."""
    alpha = EnlargedAlpha(upscaler.scale) if reader.mode.endswith("A") else None
    colours = _colours(reader, strip, alpha)
    if upscaler.network.streams:
        pieces = upscaler.stream(colours, reader.height, reader.width)
    else:
        pieces = iter([upscaler(np.concatenate(list(colours)))])
    for pixels in pieces:
        if reader.mode in ("L", "LA"):
            pixels = _gray(pixels)
        if alpha is not None:
            enlarged = alpha.take(len(pixels) // upscaler.scale)
            pixels = np.concatenate([pixels, enlarged[..., None]], -1)
        yield pixels


def _colours(reader: RowReader, strip: int, alpha: EnlargedAlpha | None) -> Iterator[NDArray[Any]]:
    """What the network gets: (rows, W, 3). The alpha of the same rows is given to `alpha`; colours
    that it hides come from around them, to 8 bits."""
    if alpha is None:
        for pixels in reader.strips(strip):
            yield _coloured(pixels)
        return

    def shallow(rows: int) -> Iterator[Image.Image]:
        for pixels in reader.strips(rows):
            reduced = eight_bits(pixels)
            if pixels.dtype != np.uint8:
                reduced[..., -1] = np.where(pixels[..., -1] > 0, 255, 0)
            yield Image.fromarray(reduced)

    if reader.dtype == np.uint8:
        for picture in extended_strips(shallow, reader.height, strip, alpha.add):
            yield np.asarray(picture.convert("RGB"))
        return
    extended = extended_strips(shallow, reader.height, strip)
    for pixels, picture in zip(reader.strips(strip), extended, strict=True):
        alpha.add(pixels[..., -1])
        filled = np.asarray(picture.convert("RGB")).astype(np.uint16) * 257
        yield np.where(pixels[..., -1:] > 0, _coloured(pixels[..., :-1]), filled)


def _coloured(pixels: NDArray[Any]) -> NDArray[Any]:
    """(rows, W, 1 or 3) -> (rows, W, 3)."""
    return np.repeat(pixels, 3, -1) if pixels.shape[2] == 1 else pixels


def _gray(pixels: NDArray[Any]) -> NDArray[Any]:
    """(rows, W, 3) -> (rows, W, 1)."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return np.rint(pixels @ _GRAY).astype(pixels.dtype)[..., None]


def _warn_of_space(target: Path, pixels: int) -> None:
    """Tell that a result of so many bytes of pixels may not fit; compressed it is smaller."""
    folder = Path(os.path.realpath(target)).parent
    free = shutil.disk_usage(folder).free
    if free < pixels:
        warnings.warn(
            f"{target} may need up to {in_words(pixels)} where {in_words(free)} are free; "
            "make room before it is too late",
            stacklevel=2,
        )
