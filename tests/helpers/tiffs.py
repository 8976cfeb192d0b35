"""TIFF files of any kind of samples, written from the specification (TIFF 6.0)."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ASCII, SHORT, LONG, FLOAT, DOUBLE = 2, 3, 4, 11, 12
_CODES = {ASCII: "B", SHORT: "H", LONG: "I", FLOAT: "f", DOUBLE: "d"}

Tags = Mapping[int, tuple[int, Sequence[float]]]
"""Tag: type and values."""


def write_tiff(
    path: Path,
    samples: NDArray[np.integer],
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    extra: Sequence[int] = (),
    format: int | None = None,
    planar: bool = False,
    reversed_bits: bool = False,
    more: Tags | None = None,
    pages: Sequence[Tags] = (),
) -> Path:
    """An uncompressed file.

    Args:
        samples: (H, W, bands), in the range of that many bits; negative ones are stored in
            two's complement.
        order: of the bytes, "<" or ">".
        extra: what bands beyond those of the photometric interpretation are.
        format: tag 339, of all bands.
        planar: whether one band is stored after the other.
        reversed_bits: whether the lowest bits of a byte come first.
        more: further tags.
        pages: further tags of each page that follows, which shares the pixels.
    """
    height, width, bands = samples.shape
    layers = [samples[..., [k]] for k in range(bands)] if planar else [samples]
    strips = [_packed(layer, bits, order, reversed_bits) for layer in layers]
    data, starts = b"", []
    for strip in strips:
        starts.append(8 + len(data))
        data += strip + b"\0" * (len(strip) % 2)
    tags: dict[int, tuple[int, Sequence[float]]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * bands),
        259: (SHORT, [1]),
        262: (SHORT, [photometric]),
        266: (SHORT, [2 if reversed_bits else 1]),
        273: (LONG, starts),
        277: (SHORT, [bands]),
        278: (LONG, [height]),
        279: (LONG, [len(strip) for strip in strips]),
        284: (SHORT, [2 if planar else 1]),
    }
    if extra:
        tags[338] = (SHORT, list(extra))
    if format is not None:
        tags[339] = (SHORT, [format] * bands)
    if photometric == 3:
        ramp = [k * 65535 // ((1 << bits) - 1) for k in range(1 << bits)]
        tags[320] = (SHORT, ramp * 3)
    tags |= more or {}
    magic = {"<": b"II", ">": b"MM"}[order]
    result = bytearray(magic + struct.pack(f"{order}HI", 42, 8 + len(data)) + data)
    for number, page in enumerate([{}, *pages]):
        last = number == len(pages)
        result += _directory({**tags, **page}, order, len(result), last)
    path.write_bytes(result)
    return path


def _packed(samples: NDArray[np.integer], bits: int, order: str, reversed_bits: bool) -> bytes:
    height = len(samples)
    values = samples.reshape(height, -1).astype(np.int64) & ((1 << bits) - 1)
    if bits in (16, 32, 64):
        return values.astype(f"{order}u{bits // 8}").tobytes()
    shifts = np.arange(bits)[::-1]
    stream = (values[..., None] >> shifts & 1).astype(np.uint8).reshape(height, -1)
    packed = np.packbits(stream, axis=1, bitorder="little" if reversed_bits else "big")
    return packed.tobytes()


def _directory(tags: Tags, order: str, place: int, last: bool) -> bytes:
    entries = bodies = b""
    at = place + 2 + 12 * len(tags) + 4
    for tag, (type, values) in sorted(tags.items()):
        body = struct.pack(f"{order}{len(values)}{_CODES[type]}", *values)
        if len(body) <= 4:
            field = body.ljust(4, b"\0")
        else:
            field = struct.pack(f"{order}I", at + len(bodies))
            bodies += body
        entries += struct.pack(f"{order}HHI", tag, type, len(values)) + field
    bodies += b"\0" * (len(bodies) % 2)
    following = 0 if last else at + len(bodies)
    count = struct.pack(f"{order}H", len(tags))
    return count + entries + struct.pack(f"{order}I", following) + bodies
