"""Colours converted through profiles, against what the definitions say."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from profiles import GRAY, INKS, P3_TO_XYZ, WIDE

from dvmsr.runtime.images.decode import normalise
from dvmsr.runtime.images.encode import encode
from dvmsr.runtime.images.icc import (
    Colours,
    decide,
    fits,
    is_srgb,
    lab_profile,
    srgb_profile,
    to_srgb,
)

SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
"""sRGB adapted to D50 (ICC's profile sRGB v4)."""

SRGB = srgb_profile()
UNFIT = "the colour profile does not fit and is left out"
DAMAGED = "its colour profile is damaged and left out"
APPROXIMATE = "CMYK without a profile is converted to RGB, colours are approximate"


def damaged(space: bytes) -> bytes:
    """A profile that only says of which colour space it is."""
    return WIDE[:16] + space + bytes(200)


LAB = lab_profile()
UNUSABLE = Colours(None, None, (UNFIT,))
KEPT_GRAY, CONVERTED_GRAY = Colours(None, GRAY), Colours(GRAY, None)
CONVERTED_LAB = Colours(LAB, SRGB)
APPROXIMATED = Colours(None, None, (APPROXIMATE,))

DECISIONS: list[tuple[tuple[str, ...], bytes | None, Colours, Colours]] = [
    # modes, the file's profile, what becomes of them, and if sRGB is wanted
    (("RGB", "RGBA", "L", "LA"), None, Colours(None, None), Colours(None, None)),
    (("RGB", "RGBA", "L", "LA"), b"", Colours(None, None), Colours(None, None)),
    (("RGB", "RGBA"), WIDE, Colours(None, WIDE), Colours(WIDE, SRGB)),
    (("RGB", "RGBA"), SRGB, Colours(None, SRGB), Colours(None, SRGB)),
    (
        ("RGB", "RGBA"),
        damaged(b"RGB "),
        Colours(None, damaged(b"RGB ")),
        Colours(None, None, (DAMAGED,)),
    ),
    (("RGB", "RGBA"), GRAY, UNUSABLE, UNUSABLE),
    (("RGB", "RGBA"), damaged(b"CMYK"), UNUSABLE, UNUSABLE),
    (("L", "LA"), GRAY, KEPT_GRAY, CONVERTED_GRAY),
    (
        ("L", "LA"),
        damaged(b"GRAY"),
        Colours(None, damaged(b"GRAY")),
        Colours(None, None, (DAMAGED,)),
    ),
    (("L", "LA"), WIDE, UNUSABLE, UNUSABLE),
    (("CMYK",), None, APPROXIMATED, APPROXIMATED),
    (("CMYK",), INKS, Colours(INKS, SRGB), Colours(INKS, SRGB)),
    (("CMYK",), SRGB, *2 * (Colours(None, None, (UNFIT, APPROXIMATE)),)),
    (("CMYK",), damaged(b"CMYK"), *2 * (Colours(None, None, (DAMAGED, APPROXIMATE)),)),
    (("LAB",), None, CONVERTED_LAB, CONVERTED_LAB),
    (("LAB",), LAB, CONVERTED_LAB, CONVERTED_LAB),
    (("LAB",), SRGB, *2 * (Colours(LAB, SRGB, (UNFIT,)),)),
    (("LAB",), damaged(b"Lab "), *2 * (Colours(LAB, SRGB, (DAMAGED,)),)),
    (("I", "F", "HSV"), None, Colours(None, None), Colours(None, None)),
    (("I", "F", "HSV"), WIDE, UNUSABLE, UNUSABLE),
]


@pytest.mark.parametrize(("modes", "profile", "usually", "on_request"), DECISIONS)
def test_decides_on_colours(
    modes: tuple[str, ...], profile: bytes | None, usually: Colours, on_request: Colours
) -> None:
    for mode in modes:
        assert decide(mode, profile, srgb=False) == usually
        assert decide(mode, profile, srgb=True) == on_request


def expected_srgb(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Display P3's primaries with gamma 2.2 -> sRGB, 0 to 255, in FP64."""
    linear = (pixels / 255) ** (563 / 256)  # 2.2 as the profile can say it
    linear = (linear @ P3_TO_XYZ.T @ np.linalg.inv(SRGB_TO_XYZ).T).clip(0, 1)
    low = 12.92 * linear
    return 255 * np.where(linear <= 0.0031308, low, 1.055 * linear ** (1 / 2.4) - 0.055)


def pixels(bands: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (16, 16, bands), dtype=np.uint8)


def with_profile(image: Image.Image, profile: bytes) -> Image.Image:
    image.info["icc_profile"] = profile
    return image


@pytest.fixture(autouse=True)
def _no_warning_unless_expected() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def test_wide_colours_become_srgb() -> None:
    """To two levels, which 8 bits in and out and the profile's 16 may cost."""
    converted = to_srgb(Image.fromarray(pixels()), WIDE)
    assert np.abs(np.asarray(converted) - expected_srgb(pixels())).max() <= 2
    assert np.abs(np.asarray(converted, float) - pixels()).max() > 20


def test_alpha_stays() -> None:
    converted = to_srgb(Image.fromarray(pixels(4)), WIDE)
    assert converted.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(converted)[..., 3], pixels(4)[..., 3])
    assert np.abs(np.asarray(converted)[..., :3] - expected_srgb(pixels(4)[..., :3])).max() <= 2


def test_only_on_request() -> None:
    image = with_profile(Image.fromarray(pixels()), WIDE)
    kept = normalise(image, "p")
    assert kept.info == {"icc_profile": WIDE} and kept.tobytes() == image.tobytes()
    converted = normalise(image, "p", srgb=True)
    assert converted.info == {"icc_profile": srgb_profile()}
    assert np.abs(np.asarray(converted) - expected_srgb(pixels())).max() <= 2
    again = normalise(converted, "p", srgb=True)
    assert again.tobytes() == converted.tobytes()


@pytest.mark.parametrize("suffix", [".bmp", ".gif"])
def test_formats_without_profiles_get_srgb(suffix: str) -> None:
    flat = np.full((4, 4, 3), (200, 40, 90), np.uint8)
    image = with_profile(Image.fromarray(flat), WIDE)
    with pytest.warns(UserWarning, match="colours are converted to sRGB, as"):
        data = encode(image, Path(f"p{suffix}"))
    with Image.open(io.BytesIO(data)) as written:
        assert np.abs(np.asarray(written.convert("RGB")) - expected_srgb(flat)).max() <= 2
    assert encode(with_profile(image, srgb_profile()), Path(f"p{suffix}"))


def test_a_profile_that_does_not_fit_is_told() -> None:
    image = with_profile(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), WIDE)
    with pytest.warns(UserWarning) as caught:
        assert normalise(image, "p").mode == "RGB"
    assert [str(warning.message) for warning in caught] == [
        "p: the colour profile does not fit and is left out",
        "p: CMYK without a profile is converted to RGB, colours are approximate",
    ]


@pytest.mark.parametrize(
    ("lab", "rgb"),
    [((100, 0, 0), (255, 255, 255)), ((0, 0, 0), (0, 0, 0)), ((53, 80, 67), (255, 0, 0))],
)
def test_lab_becomes_srgb(lab: tuple[int, int, int], rgb: tuple[int, int, int]) -> None:
    """Coordinates are rounded, which costs red up to 10 levels."""
    stored = (round(lab[0] * 2.55), lab[1] & 255, lab[2] & 255)
    image = normalise(Image.frombytes("LAB", (1, 1), bytes(stored)), "p")
    assert image.info == {"icc_profile": srgb_profile()}
    assert np.abs(np.array(image.getpixel((0, 0))) - rgb).max() <= 10


def test_a_damaged_profile_is_told_and_left_out() -> None:
    broken = WIDE[:16] + b"RGB " + bytes(200)
    image = with_profile(Image.fromarray(pixels()), broken)
    with pytest.warns(UserWarning, match="p: its colour profile is damaged and left out"):
        assert normalise(image, "p", srgb=True).tobytes() == image.tobytes()


def test_what_profiles_say() -> None:
    assert is_srgb(srgb_profile()) and not is_srgb(WIDE) and not is_srgb(b"")
    assert fits(WIDE, "RGBA") and not fits(WIDE, "L") and not fits(b"", "RGB")
    assert srgb_profile() == srgb_profile()
    assert ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile())).profile.xcolor_space == "RGB "
