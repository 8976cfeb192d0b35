"""Image files in and out: no pixel, transparency or colour profile is changed without a warning.

Everything behind this module sees upright images of mode RGB, L, RGBA or LA, 8 bits per channel,
whose `info` holds at most the colour profile. What else a file holds is `picture`'s affair.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.runtime.images import avif, frames, icc
from dvmsr.runtime.images.libtiff import complaints
from dvmsr.runtime.images.samples import Samples, describe
from dvmsr.runtime.images.tiff import Damaged
from dvmsr.utils.paths import check_input, unreadable

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

MAX_PIXELS = 89_478_485
"""Pictures with more are refused before they are decoded."""
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

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}
_MOST_TEXT = 16 << 20
"""Bytes of a PNG's colour profile, or one of its texts. Pillow's own limit calls files damaged that
hold the work flow of a program that makes pictures."""
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs, it raises as well
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, _MOST_TEXT)
_COLOUR_MAP = 320
_OR_LARGE = ", or pip install 'dvmsr[large]' for dvmsr-infer"
_GIF_COLOURS = 255
"""And one that is transparent."""


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


def encode(
    image: Image.Image, path: Path, more: Sequence[Image.Image] = (), **options: Any
) -> bytes:
    """The bytes of an image file in the format of the path's extension, which is not written.

    JPEG has quality 95 and no chroma subsampling, WebP quality 95, AVIF quality 90, TIFF is
    compressed by LZW. Warns if the format cannot hold transparency or the colour profile.

    Args:
        image: of mode RGB, L, RGBA or LA.
        more: frames or pages after it.
        options: of Pillow's `save`, before those above.
    """
    format = check_format(path)
    frames = [_prepared(frame, format, path) for frame in (image, *more)]
    first, held = frames[0]
    options = {**_SAVE_OPTIONS.get(format, {}), "icc_profile": None, **held, **options}
    if "qtables" in options:
        del options["quality"]
    if more:
        first, *others = (_with_info(*frame) for frame in frames)
        options.update(save_all=True, append_images=others)
        if format == "TIFF":  # every page has its own
            del options["icc_profile"]
    buffer = io.BytesIO()
    try:
        first.save(buffer, format, **options)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's encoders raise anything, too
        raise DvmsrError(f"{path} cannot be encoded as {format} ({error}); take PNG") from None
    return buffer.getvalue()


def _with_info(image: Image.Image, info: dict[str, Any]) -> Image.Image:
    image = image.copy()
    image.info = dict(info.items())
    return image


def _prepared(image: Image.Image, format: str, path: Path) -> tuple[Image.Image, dict[str, Any]]:
    """As the format can hold it, with colour profile and transparent palette entry by the names
    that Pillow's `save` and `info` give them."""
    held = format not in UNMANAGED and not (format in COLOURED and image.mode in ("L", "LA"))
    colours = icc.decide(image.mode, image.info.get("icc_profile"), srgb=not held)
    for told in colours.warnings:
        warnings.warn(f"{path}: {told}", stacklevel=3)
    if "A" in image.getbands() and format in FLAT:
        if image.getchannel("A").getextrema() != (255, 255):
            warn_of_white(path, format)
        image = flatten(image)
    if colours.source:
        warnings.warn(
            f"{path}: colours are converted to sRGB, as {format} holds no such profile",
            stacklevel=3,
        )
        image = icc.to_srgb(image, colours.source)
    if format in COLOURED and image.mode in ("L", "LA"):
        image = image.convert("RGBA" if image.mode == "LA" else "RGB")
    info: dict[str, Any] = {"icc_profile": colours.profile} if held and colours.profile else {}
    if format == "GIF":
        image, hole = _with_palette(image)
        info |= hole
    return image, info


def _with_palette(image: Image.Image) -> tuple[Image.Image, dict[str, Any]]:
    """The picture with a palette of its own, and what `info` must hold for its transparency."""
    if "A" not in image.getbands():
        return (image, {}) if image.mode == "L" else (image.quantize(_GIF_COLOURS + 1), {})
    alpha = image.getchannel("A")
    holes = alpha.point(lambda value: 255 * (value < 128))
    result = image.convert("RGB").quantize(_GIF_COLOURS)
    result.paste(_GIF_COLOURS, mask=holes)
    return result, {"transparency": _GIF_COLOURS} if holes.getbbox() else {}


def is_soft(image: Image.Image) -> bool:
    """Whether some of its transparency is neither nothing nor all."""
    return "A" in image.getbands() and any(image.getchannel("A").histogram()[1:255])


def flatten(image: Image.Image) -> Image.Image:
    """The picture of mode RGBA or LA on white, without alpha."""
    opaque = "L" if image.mode == "LA" else "RGB"
    canvas = Image.new(opaque, image.size, "white")
    canvas.paste(image.convert(opaque), mask=image.getchannel("A"))
    return canvas


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


def extension_of(path: Path) -> str:
    """That of the format that a picture's file is in; .png if it is in none of ours."""
    try:
        with path.open("rb") as file, open_picture(file, str(path), bounded=False) as image:
            found = image.format
    except (DvmsrError, OSError):  # what is wrong with it is told when it is decoded
        found = None
    return next((end for end, format in FORMATS.items() if format == found), ".png")
