"""Colour profiles made from their definition."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

D50 = np.array([0.9642, 1.0, 0.8249])
P3_TO_XYZ = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
"""Display P3 adapted to D50 (Apple's profile; Bradford)."""


def matrix_profile(matrix: NDArray[np.float64], gamma: float) -> bytes:
    """A profile of RGB (ICC.1:2001-04, section 6.3.1.2): three primaries and one gamma."""
    curve = b"curv" + bytes(4) + (1).to_bytes(4, "big") + int(gamma * 256).to_bytes(2, "big")
    text = b"wide\0"
    tags = {
        b"desc": b"desc" + bytes(4) + len(text).to_bytes(4, "big") + text + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + _fixed(D50),
        **{
            b"rXYZ gXYZ bXYZ".split()[i]: b"XYZ " + bytes(4) + _fixed(matrix[:, i])
            for i in (0, 1, 2)
        },
        **{name: curve + bytes(2) for name in (b"rTRC", b"gTRC", b"bTRC")},
    }
    return _profile(b"mntrRGB XYZ ", tags)


def gray_profile(gamma: float) -> bytes:
    """A profile of gray (ICC.1:2001-04, section 6.3.1.1)."""
    curve = b"curv" + bytes(4) + (1).to_bytes(4, "big") + int(gamma * 256).to_bytes(2, "big")
    tags = {b"wtpt": b"XYZ " + bytes(4) + _fixed(D50), b"kTRC": curve + bytes(2)}
    return _profile(b"mntrGRAYXYZ ", tags)


def cmyk_profile() -> bytes:
    """A profile of inks that all only darken, by a table of 2^4 colours (ICC.1:2001-04,
    lut8Type)."""
    straight = bytes(range(256))
    lightness = [255 - 255 * min(row.bit_count(), 3) // 3 for row in range(16)]
    table = b"".join(bytes([light, 128, 128]) for light in lightness)
    matrix = _fixed(np.eye(3).ravel())
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * straight + table + 3 * straight
    tags = {b"wtpt": b"XYZ " + bytes(4) + _fixed(D50), b"A2B0": lut}
    return _profile(b"prtrCMYKLab ", tags)


def _fixed(values: Any) -> bytes:
    return b"".join(round(v * 65536).to_bytes(4, "big", signed=True) for v in values)


def _profile(kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Class, colour space and connection space, and what else it says."""
    offset = 128 + 4 + 12 * len(tags)
    table, body = len(tags).to_bytes(4, "big"), b""
    for name, data in tags.items():
        table += name + (offset + len(body)).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data + bytes(-len(data) % 4)
    head = bytes(4) + b"none" + bytes.fromhex("02400000") + kind + bytes(12)
    head += b"acsp" + bytes(28) + _fixed(D50) + bytes(48)
    profile = head + table + body
    return len(profile).to_bytes(4, "big") + profile[4:]


WIDE = matrix_profile(P3_TO_XYZ, 2.2)
GRAY = gray_profile(2.2)
INKS = cmyk_profile()
