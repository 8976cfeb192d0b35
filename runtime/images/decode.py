"""Image files in: no pixel, transparency or colour profile is changed without a warning.

Everything behind this module sees upright images of mode RGB, L, RGBA or LA, 8 bits per channel,
whose `info` holds at most the colour profile. What else a file holds is `picture`'s affair.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images import avif, frames, icc
from dvmsr.runtime.images.formats import FORMATS, READABLE
from dvmsr.runtime.images.libtiff import complaints
from dvmsr.runtime.images.samples import Samples, describe
from dvmsr.runtime.images.tiff import Damaged
from dvmsr.utils.paths import check_input, unreadable

MAX_PIXELS = 89_478_485
"""Pictures with more are refused before they are decoded."""
_MOST_TEXT = 16 << 20
"""Bytes of a PNG's colour profile, or one of its texts. Pillow's own limit calls files damaged that
hold the work flow of a program that makes pictures."""
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, _MOST_TEXT)
_COLOUR_MAP = 320
_OR_LARGE = ", or pip install 'dvmsr[large]' for dvmsr-infer"


class TooManyPixels(DvmsrError):
    """A picture has more than `MAX_PIXELS`."""


class UnknownFormat(DvmsrError):
    """A file is in none of `FORMATS`."""


def read_image(
    path: Path, check_size: Callable[[int, int], None] = lambda height, width: None
) -> Image.Image:
    """Read a file of one of `FORMATS`; see `decode_image`.

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
    file: BinaryIO, name: str, check_size: Callable[[int, int], None] = lambda height, width: None
) -> Image.Image:
    """The picture in a file of one of `FORMATS`; see `normalise` for the result.

    Args:
        file: at its beginning.
        name: what messages call it.
        check_size: called with height and width before anything is decoded; may raise.

    Raises:
        DvmsrError: if it is damaged, too large or holds what `normalise` refuses.
        OSError: if the file cannot be read.
    """
    with decoding(file, name) as image:
        check_size(image.height, image.width)
        return normalise(image, name)


@contextmanager
def decoding(file: BinaryIO, name: str) -> Iterator[Image.Image]:
    """A picture to be decoded in the block; errors as of `decode_image`."""
    with open_picture(file, name) as image:
        if image.format == "AVIF":
            for told in avif.losses(file, "icc_profile" in image.info):
                warnings.warn(f"{name}: {told}", stacklevel=4)
        try:
            with complaints() if image.format == "TIFF" else nullcontext() as found:
                yield image
            if found:
                warnings.warn(
                    f"{name}: its data is damaged, and parts of the picture may be wrong; get a "
                    "complete copy of it",
                    stacklevel=4,
                )
        except (DvmsrError, MemoryError):
            raise
        except Exception as error:  # damaged bytes can make Pillow raise anything
            raise (_too_long(name) if _is_limit(error) else damaged(name)) from None


def open_picture(file: BinaryIO, name: str, bounded: bool = True) -> Image.Image:
    """A picture that is not decoded yet; errors as of `decode_image`.

    Args:
        bounded: whether what has more than `MAX_PIXELS` is refused.
    """
    Image.init()
    known = sorted(set(FORMATS.values()) & set(Image.OPEN))
    format, start = None, file.read(16)
    try:
        for format in known:
            factory, accepts = Image.OPEN[format]
            if accepts is None or accepts(start) is True:
                file.seek(0)
                image = factory(file, "")
                break
        else:
            if not start:
                raise DvmsrError(f"{name} is empty; get a complete copy of it")
            raise UnknownFormat(f"{name} is not a {READABLE} image; convert it to one")
    except DvmsrError:
        raise
    except Exception as error:  # damaged bytes can make Pillow raise anything
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of Pillow
            raise
        raise (_too_long(name) if _is_limit(error) else _not_read(file, name, format)) from None
    if bounded and image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    return image


def _is_limit(error: Exception) -> bool:
    """Whether Pillow refuses the text of a PNG for its length."""
    return isinstance(error, ValueError) and "MAX_TEXT" in str(error)


def _too_long(name: str) -> DvmsrError:
    return DvmsrError(
        f"{name} has text or a colour profile of more than {_MOST_TEXT >> 20} MiB; remove it"
    )


def _not_read(file: BinaryIO, name: str, format: str | None) -> DvmsrError:
    samples = describe(file, format)
    kind = f"{format} of a kind that is not read" + (f" ({samples})" if samples else "")
    return DvmsrError(
        f"{name} is damaged or {kind}; get a complete copy of it or convert it to 8-bit RGB"
    )


def normalise(
    image: Image.Image, name: str, srgb: bool = False, remedy: str | None = None
) -> Image.Image:
    """The picture upright, in mode RGB, L, RGBA or LA, with nothing but its colour profile.

    Warns of every conversion that changes more than the orientation. CMYK and Lab become sRGB,
    through the colour profile if there is one.

    Args:
        name: what messages call the picture.
        srgb: whether to convert what has another profile to sRGB.
        remedy: how more than 8 bits per channel are kept; None for the way of a file.

    Raises:
        DvmsrError: if it has several frames, or pixels that 8-bit RGB cannot stand for.
    """
    file = getattr(image, "fp", None)
    try:
        count = len(frames.numbers(image, file)) if file else getattr(image, "n_frames", 1)
    except Damaged:
        raise damaged(name) from None
    if count > 1 and image.format != "MPO":
        raise many_frames(name, count)
    return normalise_frame(image, name, srgb, remedy)


def normalise_frame(
    image: Image.Image, name: str, srgb: bool = False, remedy: str | None = None
) -> Image.Image:
    """As `normalise`, of the frame that a file with several is at."""
    bits = depth(image)
    _refuse_misread(image, name)
    if bits > 8:
        warnings.warn(
            f"{name}: {bits} bits per channel are reduced to 8; {remedy or _kept_by_rows(bits)}",
            stacklevel=2,
        )
    profile, format = image.info.get("icc_profile"), image.format
    old_palette = _palette_of_8_bits(image)
    gray = any(str(tile[3]).startswith("LA;16") for tile in getattr(image, "tile", ()))
    image.load()
    if old_palette and image.mode == "P":
        image.putpalette(old_palette)
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged bytes can make Pillow raise anything
        warnings.warn(f"{name}: its EXIF data is damaged and ignored", stacklevel=2)
        image = image.copy()

    if image.mode.startswith("I;16") or (image.mode == "I" and format == "PNG"):
        wide, most = np.asarray(image).astype(np.uint32), (1 << bits) - 1
        image = Image.fromarray(((wide * 255 + most // 2) // most).astype(np.uint8))
    elif "transparency" in image.info or image.mode in ("PA", "RGBa", "La"):
        if image.mode == "1" and image.info["transparency"]:
            image.info["transparency"] = 255  # Pillow leaves the 1 of the file
        image = image.convert("LA" if image.mode in ("1", "L", "La") else "RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "RGBX", "YCbCr"):
        image = image.convert("RGB")
    elif gray:  # Pillow makes colours of it
        image = image.convert("LA")
    colours = icc.decide(image.mode, profile, srgb)
    for told in colours.warnings:
        warnings.warn(f"{name}: {told}", stacklevel=2)
    if colours.source:
        image = icc.to_srgb(image, colours.source)
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    if image.mode not in ("RGB", "L", "RGBA", "LA"):
        raise DvmsrError(f"{name} has pixels of type {image.mode}; convert it to 8-bit RGB first")
    image.info = {"icc_profile": colours.profile} if colours.profile else {}
    return image


def _palette_of_8_bits(image: Image.Image) -> bytes | None:
    """That of a TIFF which holds 8 bits where 16 belong, as old programs wrote it: red, green and
    blue of each colour; None otherwise."""
    table = getattr(image, "tag_v2", {}).get(_COLOUR_MAP, ()) if image.mode == "P" else ()
    if not table or max(table) > 255:
        return None
    return np.reshape(table, (3, -1)).T.astype(np.uint8).tobytes() if len(table) % 3 == 0 else None


def depth(image: Image.Image) -> int:
    """Bits per channel of a picture, at most 16, as the file behind it has them if it is not
    decoded yet."""
    if image.format == "TIFF":
        bits = Samples.of_image(image).bits[0]
        return bits if bits in (12, 16) and image.mode != "I" else 8
    if image.mode.startswith("I"):
        return 16 if image.mode != "I" or image.format == "PNG" else 8
    tiles = getattr(image, "tile", ()) if image.format == "PNG" else ()
    return 16 if any(";16" in str(tile[3]) for tile in tiles) else 8


def _kept_by_rows(bits: int) -> str:
    """How more than 8 bits are kept."""
    if bits < 16:
        return "convert it to 16 bits to keep them"
    missing = "" if find_spec("pyvips") else ", with pip install 'dvmsr[large]'"
    return f"dvmsr-infer keeps them from file to file, in PNG and TIFF{missing}"


def _refuse_misread(image: Image.Image, name: str) -> None:
    """Raises `DvmsrError` for samples that Pillow would decode to something else, and warns of
    those that it leaves out."""
    if image.format == "TIFF":
        samples = Samples.of_image(image)
        if not samples.right_in_memory or image.mode in ("I", "F"):
            large = _OR_LARGE if samples.right_by_rows else ""
            raise DvmsrError(
                f"{name} has {samples}, which are not read; convert it to 8-bit RGB{large}"
            )
        if samples.left_out:
            warn_of_bands(name, samples.left_out)
    if "transparency" in image.info and depth(image) > 8:
        raise DvmsrError(
            f"{name} has a 16-bit transparent colour; convert it to 8 bits first{_OR_LARGE}"
        )


def warn_of_bands(name: str, count: int) -> None:
    """Tell that a picture has bands which are neither colour nor alpha."""
    bands = f"{count} bands that are" if count > 1 else "a band that is"
    warnings.warn(f"{name}: {bands} neither colour nor alpha, left out", stacklevel=3)


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


def extension_of(path: Path) -> str:
    """That of the format that a picture's file is in; .png if it is in none of ours."""
    try:
        with path.open("rb") as file, open_picture(file, str(path), bounded=False) as image:
            found = image.format
    except (DvmsrError, OSError):  # what is wrong with it is told when it is decoded
        found = None
    return next((end for end, format in FORMATS.items() if format == found), ".png")
