"""Formats of pictures that are read and written, and what each can hold."""

import logging
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".avif": "AVIF",
    **dict.fromkeys((".jfif", ".jpe", ".jfi"), "JPEG"),
    ".dib": "BMP",
    ".apng": "PNG",
}
"""Pillow's name of the format that each file extension stands for."""
NOT_READ = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".jxr", ".wdp", ".hdp"),
    *(".psd", ".psb", ".xcf", ".exr", ".hdr", ".tga", ".ico", ".icns", ".pcx", ".dds", ".qoi"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw"),
    *(".orf", ".rw2", ".raf", ".pef", ".srw", ".rwl", ".3fr", ".iiq", ".mpo", ".heics", ".avifs"),
    *(".cur", ".sgi", ".rgb", ".fits", ".fit", ".dcm", ".eps", ".jps", ".pam", ".pfm"),
)
"""File extensions of further pictures: photographs of telephones, raw ones, drawings."""
MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "AVIF": 65_536}
FLAT = ("JPEG", "BMP")
"""Formats without transparency."""
COLOURED = ("WEBP", "AVIF")
"""Formats without gray."""
UNMANAGED = ("BMP", "GIF")
"""Formats without colour profiles."""
LOSSY = ("JPEG", "WEBP", "AVIF")
"""Formats with a quality."""
READABLE = "PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF"
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs, it raises as well


def read_extension(
    name: str | None, option: str = "format", formats: Iterable[str] = FORMATS
) -> str | None:
    """The extension of files of a format, with its dot.

    Args:
        name: such as `png`; None for none.
        option: what it was given as.
        formats: the extensions that it may stand for.

    Raises:
        UsageError: if it stands for none.
    """
    if name is None:
        return None
    extension = f".{name.lower().removeprefix('.')}"
    if extension not in formats:
        known = ", ".join(known[1:] for known in formats)
        raise UsageError(f"{option} must be one of {known}, not {name!r}")
    return extension


def check_format(path: Path) -> str:
    """The format that a file name stands for.

    Raises:
        UsageError: if there is none.
        MissingComponentError: if Pillow cannot write it here.
    """
    try:
        format = FORMATS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"{path} must end in one of {', '.join(FORMATS)}") from None
    Image.init()
    if format not in Image.SAVE:
        raise MissingComponentError(
            f"{path} cannot be written, as Pillow has no {format} here: pip install -U pillow"
        )
    return format


def check_sides(path: Path, height: int, width: int) -> None:
    """Whether the format that a file name stands for can hold a picture of that size.

    Raises:
        DvmsrError: if it cannot.
    """
    limit = MAX_SIDE.get(check_format(path))
    if limit and max(height, width) > limit:
        raise DvmsrError(
            f"{path} would have {width}x{height} pixels, and its format holds at most {limit} "
            "a side; choose PNG with -o"
        )
