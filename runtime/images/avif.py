"""What of an AVIF is lost when it is decoded to 8 bits of sRGB, as Pillow does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_FULL = {b"meta"}
"""Boxes that begin with a version (ISO/IEC 14496-12, section 4.2)."""
_WAY = (b"meta", b"iprp", b"ipco")
"""The boxes around what is said of the picture (ISO/IEC 23008-12, section 9.3)."""
_MOST = 1 << 20
"""Bytes of the box of properties; what claims more is damaged."""
_PRIMARIES = {9: "BT.2020", 10: "XYZ", 11: "DCI-P3", 12: "Display P3", 22: "EBU 3213"}
_TRANSFERS = {8: "linear light", 16: "PQ", 17: "SMPTE 428", 18: "HLG"}
"""Those that sRGB cannot stand for (ITU-T H.273, tables 2 and 3)."""


def losses(file: BinaryIO, has_profile: bool) -> list[str]:
    """What the user is told, to follow the picture's name.

    Args:
        file: whose position is kept.
        has_profile: whether the file has a colour profile, which tells more than its numbers.
    """
    place = file.tell()
    properties = dict(reversed(list(_properties(file))))  # the first of a kind is the picture's
    file.seek(place)
    told = []
    coded = properties.get(b"av1C", b"").ljust(3, b"\0")
    if coded[2] & 0x40:
        bits = 12 if coded[2] & 0x20 else 10
        told.append(f"{bits} bits per channel are reduced to 8, as AVIF is read with no more")
    colours = properties.get(b"colr", b"")
    if colours[:4] == b"nclx" and len(colours) >= 8 and not has_profile:
        numbers = int.from_bytes(colours[4:6], "big"), int.from_bytes(colours[6:8], "big")
        names = [_PRIMARIES.get(numbers[0]), _TRANSFERS.get(numbers[1])]
        if known := " and ".join(name for name in names if name):
            told.append(f"its colours, {known}, are taken for sRGB; convert it to sRGB first")
    return told


def _properties(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each."""
    start, end = 0, file.seek(0, 2)
    for wanted in _WAY:
        for kind, begin, stop in _boxes(file, start, end):
            if kind == wanted:
                start, end = begin + 4 * (kind in _FULL), stop
                break
        else:
            return
    if end - start > _MOST:
        return
    for kind, begin, stop in _boxes(file, start, end):
        file.seek(begin)
        yield kind, file.read(stop - begin)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of the content of each box between two places."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:16], "big"), start + 16
        stop = end if size == 0 else start + size
        if not content <= stop <= end:
            return
        yield kind, content, stop
        start = stop
