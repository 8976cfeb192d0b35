"""Image files in and out: no pixel, transparency or colour profile is changed without a warning.

Everything behind this module sees upright images of mode RGB, L, RGBA or LA, 8 bits per channel,
whose `info` holds at most the colour profile.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.paths import check_input, unreadable

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
"""Pillow's name of the format that each file extension stands for."""

MAX_PIXELS = 89_478_485
"""Pictures with more are refused before they are decoded."""
MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383}

FLAT = ("JPEG", "BMP")
"""Formats without transparency."""

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_lzw"},
}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_PROFILE_SPACES = {"RGB": b"RGB ", "L": b"GRAY"}


class TooManyPixels(DvmsrError):
    """A picture has more than `MAX_PIXELS`."""


def measure(path: Path) -> tuple[int, int]:
    """Height and width of the picture in a file as it is stored; nothing is decoded.

    Raises:
        UsageError: if there is no such file.
        TooManyPixels: if it has more than `MAX_PIXELS`.
        DvmsrError: if it is no picture, or its beginning is damaged.
    """
    check_input(path)
    try:
        with path.open("rb") as file, _opened(file, str(path)) as image:
            return image.height, image.width
    except OSError as error:
        raise unreadable(path, error) from None


def read_image(
    path: Path, check_size: Callable[[int, int], None] = lambda height, width: None
) -> Image.Image:
    """Read a PNG, JPEG, WebP, TIFF or BMP file; see `decode_image`.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it cannot be read, or as `decode_image`.
    """
    check_input(path)
    try:
        with path.open("rb") as file:
            return decode_image(file, str(path), check_size)
    except OSError as error:
        raise unreadable(path, error) from None


def decode_image(
    file: BinaryIO,
    name: str,
    check_size: Callable[[int, int], None] = lambda height, width: None,
) -> Image.Image:
    """The picture in a PNG, JPEG, WebP, TIFF or BMP file; see `normalise` for the result.

    Args:
        file: at its beginning.
        name: what messages call it.
        check_size: called with height and width before anything is decoded; may raise.

    Raises:
        DvmsrError: if it is damaged, too large or holds what `normalise` refuses.
        OSError: if the file cannot be read.
    """
    with _opened(file, name) as image:
        check_size(image.height, image.width)
        try:
            return normalise(image, name)
        except (DvmsrError, MemoryError):
            raise
        except Exception:
            raise damaged(name) from None


def _opened(file: BinaryIO, name: str) -> Image.Image:
    """A picture that is not decoded yet; errors as of `decode_image`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=sorted(set(FORMATS.values())))
    except UnidentifiedImageError:
        if file.seek(0, os.SEEK_END) == 0:
            raise DvmsrError(f"{name} is empty; get a complete copy of it") from None
        raise DvmsrError(
            f"{name} is not a PNG, JPEG, WebP, TIFF or BMP image; convert it to one"
        ) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(name) from None
    except OSError as error:
        if error.errno is None:
            raise damaged(name) from None
        raise
    except Exception:  # damaged bytes can make Pillow raise anything
        raise damaged(name) from None
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    return image


def normalise(image: Image.Image, name: str) -> Image.Image:
    """The picture upright, in mode RGB, L, RGBA or LA, with nothing but its colour profile.

    Warns of every conversion that changes more than the orientation.

    Args:
        name: what messages call the picture.

    Raises:
        DvmsrError: if it has several frames, or pixels that 8-bit RGB cannot stand for.
    """
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise many_frames(name, frames)
    sixteen_bits = _has_sixteen_bits(image, name)
    profile = image.info.get("icc_profile")
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged bytes can make Pillow raise anything
        warnings.warn(f"{name}: its EXIF data is damaged and ignored", stacklevel=2)
        image = image.copy()

    if sixteen_bits:
        warnings.warn(f"{name}: 16 bits per channel are reduced to 8", stacklevel=2)
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode == "CMYK":
        warnings.warn(f"{name}: CMYK is converted to RGB, colours are approximate", stacklevel=2)
        image, profile = image.convert("RGB"), None
    elif "transparency" in image.info or image.mode in ("PA", "RGBa", "La"):
        image = image.convert("LA" if image.mode in ("L", "La") else "RGBA")
    elif image.mode in ("P", "RGBX", "YCbCr"):
        image = image.convert("RGB")
    if image.mode not in ("RGB", "L", "RGBA", "LA"):
        raise DvmsrError(f"{name} has pixels of type {image.mode}; convert it to 8-bit RGB first")
    image.info = {"icc_profile": profile} if profile else {}
    return image


def _has_sixteen_bits(image: Image.Image, name: str) -> bool:
    """Whether the file behind a picture that is not decoded yet has 16 bits per channel.

    Raises:
        DvmsrError: for those that Pillow would decode to something else.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I"):
        wide = image.mode == "I" and image.format != "PNG"
        bits = tags.get(_TIFF_BITS, (32 if wide else 16,))
        if wide or tuple(bits) != (16,):
            raise DvmsrError(f"{name} has {bits[0]}-bit gray values; convert it to 8 bits first")
        if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
            raise DvmsrError(f"{name} has inverted 16-bit gray values; invert it first")
    elif not any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return False
    if "transparency" in image.info:
        raise DvmsrError(f"{name} has a 16-bit transparent colour; convert it to 8 bits first")
    return True


def check_format(path: Path) -> str:
    """The format that a file name stands for.

    Raises:
        UsageError: if there is none.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"{path} must end in one of {', '.join(FORMATS)}") from None


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


def encode(image: Image.Image, path: Path) -> bytes:
    """The bytes of an image file in the format of the path's extension, which is not written.

    JPEG has quality 95 and no chroma subsampling, WebP quality 95, TIFF is compressed by LZW.
    Warns if the format cannot hold transparency or the colour profile.

    Args:
        image: of mode RGB, L, RGBA or LA.
    """
    format = check_format(path)
    profile = image.info.get("icc_profile")
    if "A" in image.getbands() and format in FLAT:
        if image.getchannel("A").getextrema() != (255, 255):
            warn_of_white(path, format)
        image = flatten(image)
    if format == "WEBP" and image.mode in ("L", "LA"):
        image = image.convert("RGBA" if image.mode == "LA" else "RGB")
    profile = fitting_profile(profile, format, image.mode, path)
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, icc_profile=profile, **_SAVE_OPTIONS.get(format, {}))
    except (OSError, ValueError) as error:
        raise DvmsrError(f"{path} cannot be encoded as {format} ({error}); take PNG") from None
    return buffer.getvalue()


def flatten(image: Image.Image) -> Image.Image:
    """The picture of mode RGBA or LA on white, without alpha."""
    opaque = "L" if image.mode == "LA" else "RGB"
    canvas = Image.new(opaque, image.size, "white")
    canvas.paste(image.convert(opaque), mask=image.getchannel("A"))
    return canvas


def fitting_profile(profile: bytes | None, format: str, mode: str, path: Path) -> bytes | None:
    """The colour profile if a file of that format and mode can have it; else warns."""
    space = _PROFILE_SPACES[mode.removesuffix("A")]
    if profile and (format == "BMP" or profile[16:20] != space):
        warnings.warn(f"{path}: the colour profile does not fit and is left out", stacklevel=2)
        return None
    return profile


def warn_of_white(path: Path, format: str) -> None:
    """Tell that a format without transparency shows white in its place."""
    warnings.warn(f"{path}: {format} holds no transparency, which becomes white", stacklevel=3)


def many_frames(name: str, frames: int) -> DvmsrError:
    """What to raise for a file with several pictures."""
    return DvmsrError(f"{name} holds {frames} frames or pages; split it into single pictures")


def damaged(name: str) -> DvmsrError:
    """What to raise for a file that cannot be decoded to its end."""
    return DvmsrError(f"{name} is damaged or truncated; get a complete copy of it")


def _too_large(name: str) -> TooManyPixels:
    return TooManyPixels(
        f"{name} claims more than {MAX_PIXELS // 10**6} megapixels, the most that is read; "
        "cut it into parts if it is genuine"
    )
