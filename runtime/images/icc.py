"""Colours converted to sRGB through the profile that a file holds; Pillow's Little CMS."""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any

from PIL import Image

from dvmsr.errors import MissingComponentError

_SPACES = {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK", "LAB": b"Lab "}
_DATE, _DATE_END = 24, 36
"""Where a profile says when it was made (ICC.1:2022, section 7.2)."""


def fits(profile: bytes, mode: str) -> bool:
    """Whether a profile describes pixels of that mode of Pillow's; alpha does not count."""
    return profile[16:20] == _SPACES.get(mode.removesuffix("A"))


@cache
def is_srgb(profile: bytes) -> bool:
    """Whether a profile says of itself that it is sRGB."""
    try:
        return "srgb" in _cms().getProfileDescription(io.BytesIO(profile)).lower()
    except (_cms().PyCMSError, OSError):
        return False


@cache
def srgb_profile() -> bytes:
    """sRGB's profile, the same bytes whenever it is made."""
    cms = _cms()
    made: bytes = cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes()
    return made[:_DATE] + bytes(_DATE_END - _DATE) + made[_DATE_END:]


@cache
def lab_profile() -> bytes:
    """That of CIE L*a*b* under D50, which Lab pictures are in."""
    cms = _cms()
    made: bytes = cms.ImageCmsProfile(cms.createProfile("LAB")).tobytes()
    return made


def converts(profile: bytes, mode: str) -> bool:
    """Whether pixels of that mode, alpha aside, can be converted to sRGB through a profile."""
    try:
        _transform(profile, mode.removesuffix("A"))
    except (_cms().PyCMSError, OSError):
        return False
    return True


def to_srgb(image: Image.Image, profile: bytes, name: str) -> Image.Image:
    """The picture in sRGB, relative to its white and with black point compensation.

    Warns, and changes nothing but the mode, if the profile is damaged.

    Args:
        image: RGB, L, RGBA, LA, CMYK or LAB, which the profile fits.
        profile: an ICC profile.
        name: what the warning calls the picture.

    Returns:
        RGB or L, with alpha where there was.
    """
    opaque = image.mode.removesuffix("A")
    colours = image.convert(opaque)
    try:
        converted = _transform(profile, opaque).apply(colours)
    except (_cms().PyCMSError, OSError):
        warnings.warn(f"{name}: its colour profile is damaged and left out", stacklevel=2)
        converted = colours.convert("RGB")
    if opaque == "L":
        converted = converted.convert("L")
    if image.mode != opaque:
        converted.putalpha(image.getchannel("A"))
    return converted


@cache
def _transform(profile: bytes, mode: str) -> Any:
    cms = _cms()
    source = cms.ImageCmsProfile(io.BytesIO(profile))
    return cms.buildTransform(
        *(source, cms.createProfile("sRGB"), mode, "RGB", cms.Intent.RELATIVE_COLORIMETRIC),
        cms.Flags.BLACKPOINTCOMPENSATION,
    )


@cache
def _cms() -> Any:
    try:
        from PIL import ImageCms, _imagingcms  # noqa: F401
    except ImportError:
        raise MissingComponentError(
            "colour profiles need Pillow with Little CMS: pip install --force-reinstall pillow"
        ) from None
    return ImageCms
