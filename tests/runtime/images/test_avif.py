from __future__ import annotations

import io
import struct

import pytest
from PIL import Image, features

from dvmsr.runtime.images.avif import losses
from dvmsr.runtime.images.decode import decode_image


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def avif(coded: int = 0, primaries: int = 1, transfer: int = 13, more: bytes = b"") -> io.BytesIO:
    """The boxes of a file; `coded` is the third byte of the decoder's configuration."""
    told = box(b"av1C", bytes([0x81, 0, coded, 0])) + more
    told += box(b"colr", b"nclx" + struct.pack(">HHHB", primaries, transfer, 9, 0x80))
    meta = box(b"hdlr", bytes(20)) + box(b"iprp", box(b"ipco", told))
    return io.BytesIO(box(b"ftyp", b"avif") + box(b"meta", bytes(4) + meta) + box(b"mdat", b"x"))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (avif(), []),
        (avif(primaries=2, transfer=2), []),
        (avif(primaries=6, transfer=6), []),
        (avif(0x40), ["10 bits per channel are reduced to 8"]),
        (avif(0x60), ["12 bits per channel are reduced to 8"]),
        (avif(primaries=12), ["its colours, Display P3, are taken for sRGB"]),
        (avif(transfer=18), ["its colours, HLG, are taken for sRGB"]),
        (
            avif(0x40, 9, 16),
            ["10 bits per channel", "its colours, BT.2020 and PQ, are taken for sRGB"],
        ),
        (avif(more=box(b"av1C", bytes([0x81, 0, 0x40, 0]))), []),
    ],
    ids=["srgb", "unsaid", "bt601", "10", "12", "p3", "hlg", "hdr10", "second-is-no-picture"],
)
def test_what_is_lost_is_told(file: io.BytesIO, said: list[str]) -> None:
    file.seek(3)
    told = losses(file, has_profile=False)
    assert [text[: len(start)] for text, start in zip(told, said, strict=True)] == said
    assert file.tell() == 3


def test_a_colour_profile_tells_more_than_numbers() -> None:
    assert losses(avif(0, 9, 16), has_profile=True) == []


@pytest.mark.parametrize("length", range(0, 120, 7))
def test_a_file_that_is_cut_off_loses_nothing_or_the_same(length: int) -> None:
    whole = avif(0x40, 9, 16)
    told = losses(io.BytesIO(whole.getvalue()[:length]), has_profile=False)
    assert set(told) <= set(losses(whole, has_profile=False))


@pytest.mark.skipif(not features.check("avif"), reason="Pillow has no AVIF here")
def test_reading_one_warns(recwarn: pytest.WarningsRecorder) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "AVIF")
    plain = file.getvalue()
    decode_image(io.BytesIO(plain), "a.avif")
    assert not recwarn
    at = plain.index(b"nclx") + 4
    hdr = plain[:at] + struct.pack(">HH", 9, 16) + plain[at + 4 :]
    decode_image(io.BytesIO(hdr), "a.avif")
    assert "a.avif: its colours, BT.2020 and PQ, are taken for sRGB" in str(recwarn.pop().message)
