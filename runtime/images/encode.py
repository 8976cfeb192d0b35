"""Image files out: what a format cannot hold of a picture, a warning names."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images import icc
from dvmsr.runtime.images.formats import COLOURED, FLAT, UNMANAGED, check_format

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}
_GIF_COLOURS = 255
"""And one that is transparent."""


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
