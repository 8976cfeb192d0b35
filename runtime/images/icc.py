"""What becomes of a picture's colours and profile; to sRGB by Pillow's Little CMS."""

import io
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Colours:
    """What becomes of a picture's colours; see `decide`."""

    source: bytes | None
    """The profile through which they are converted to sRGB; None leaves them as they are, or, of
    CMYK, to a formula without a profile."""
    profile: bytes | None
    """That of the result; None for none."""
    warnings: tuple[str, ...] = ()
    """What the user is told, to follow the picture's name."""


def decide(mode: str, profile: bytes | None, srgb: bool) -> Colours:
    """Whether a picture's colours are converted, and through what.

    CMYK and Lab become sRGB, all else on request. A profile that does not fit the pixels, or is to
    be used and is damaged, counts as none; Lab without one is CIE L*a*b* under D50.

    Args:
        mode: of the pixels, as Pillow names it.
        profile: what the file holds.
        srgb: whether to convert what has another profile to sRGB.
    """
    told = []
    if profile and not fits(profile, mode):
        told.append("the colour profile does not fit and is left out")
        profile = None
    converted = mode in ("CMYK", "LAB") or (srgb and not (profile and is_srgb(profile)))
    if profile and converted and not converts(profile, mode):
        told.append("its colour profile is damaged and left out")
        profile = None
    if mode == "LAB":
        profile = profile or lab_profile()
    if mode == "CMYK" and not profile:
        told.append("CMYK without a profile is converted to RGB, colours are approximate")
    if not (profile and converted):
        return Colours(None, profile or None, tuple(told))
    return Colours(profile, None if mode in ("L", "LA") else srgb_profile(), tuple(told))


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The picture in sRGB, relative to its white and with black point compensation.

    Args:
        image: RGB, L, RGBA, LA, CMYK or LAB.
        profile: an ICC profile that `converts` its mode.

    Returns:
        RGB or L, with alpha where there was.
    """
    opaque = image.mode.removesuffix("A")
    converted: Image.Image = _transform(profile, opaque).apply(image.convert(opaque))
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
