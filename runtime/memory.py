"""How much memory an image needs in one piece, and how much there is."""

import math

from dvmsr.config import UPSAMPLER_CHANNELS, DVMSRConfig
from dvmsr.errors import DvmsrError
from dvmsr.strips import least_rows, states
from dvmsr.utils.memory import available
from dvmsr.utils.sizes import in_words

IN_PARTS = "native, in parts"
"""The backend `native` with a file that has no mixers: one of before there were any, or whose
mixers another tool has written out."""
_INNER_TENSORS = {"native": 1.5, IN_PARTS: 9, "portable": 28, "torch": 10}
"""Peak memory in (L, D) FP32 tensors, beside four of (L, C) and (L, N): what was measured for
networks of 60 and 192 channels on images of 64x64 to 510x339 pixels, and up to a third more. FP16
files compute in FP32 on a CPU."""
_BACKWARD_TENSORS = {"native": 0, IN_PARTS: 3, "portable": 3, "torch": 3}
"""How many more a bidirectional network holds."""
_ENLARGED_TENSORS = {"native": 4, IN_PARTS: 7, "portable": 7, "torch": 3}
"""The same in FP32 tensors of all channels of the enlarged image, of a network that has more than
three."""
_FLOAT = 4
_OUTPUT_BYTES = 33
"""Per output pixel: two FP32 copies and three of 8 bits, three channels each."""
_STREAMED_OUTPUT_BYTES = 13
"""Per output pixel by strips: four copies of 8 bits, three channels each, one padded to four."""
_STRIP_MARGIN = {"native": 2, IN_PARTS: 1.6, "portable": 1.6, "torch": 1.6}
_STRIP_BASE = 24 << 20
"""What the activations of a strip are multiplied by, and bytes added: rows that files without
`StripConv3x3` copy, what the allocator rounds up, and what it keeps for the sizes of the strip
before."""
_ROWS_BESIDE = 1000
"""Enlarged rows of three 8-bit channels that reading and writing by rows take, in buffers of
libvips and over the pipe to it."""
_FRAME_COPIES = 3
"""Of each enlarged frame: what was computed, what is encoded, and what the encoder compares."""
_FRAME_OVERHEAD = 10_000
"""Bytes beside the pixels of each frame: objects before and after, and what the encoder of GIF, the
hungriest, notes. 8,800 were measured with 30,000 frames of 2x2 pixels."""
_STATE_COPIES = 3
"""What a step takes, what it gives, and one more while they change hands."""


class NotEnoughMemory(DvmsrError):
    """An image, or what becomes of it, does not fit."""


def known(backend: str) -> bool:
    """Whether the memory of a backend, here and below also `IN_PARTS`, is this machine's; that of a
    GPU says itself what it has no room for."""
    return backend in _INNER_TENSORS


def estimate(config: DVMSRConfig, backend: str, height: int, width: int) -> int:
    """Peak memory in bytes for an image of that size, from above."""
    inner_tensors = _INNER_TENSORS[backend] + _BACKWARD_TENSORS[backend] * config.bidirectional
    tokens = inner_tensors * config.inner_channels + 4 * (config.state + config.channels)
    enlarged = config.scale**2
    channels = UPSAMPLER_CHANNELS if config.upsampler == "pixelshuffle" else 0
    floats = max(tokens, _ENLARGED_TENSORS[backend] * channels * enlarged)
    return height * width * (int(_FLOAT * floats) + _OUTPUT_BYTES * enlarged)


def estimate_strips(config: DVMSRConfig, backend: str, height: int, width: int, rows: int) -> int:
    """The same for an image of that size that is computed in strips of so many rows."""
    result = height * width * _STREAMED_OUTPUT_BYTES * config.scale**2
    return _estimate_strip(config, backend, width, rows) + result


def estimate_by_rows(config: DVMSRConfig, backend: str, width: int, rows: int, held: int) -> int:
    """The same for an image that is also read and written by rows, whatever its height.

    Args:
        held: bytes that the image's decoder needs beyond some rows.
    """
    beside = _ROWS_BESIDE * 3 * width * config.scale
    return _estimate_strip(config, backend, width, rows) + beside + held


def _estimate_strip(config: DVMSRConfig, backend: str, width: int, rows: int) -> int:
    """Peak memory in bytes of the network alone."""
    strip = estimate(config, backend, max(rows, least_rows(config)), width)
    carried = _FLOAT * sum(math.prod(state.shape(1, width)) for state in states(config))
    return int(_STRIP_MARGIN[backend] * strip) + _STATE_COPIES * carried + _STRIP_BASE


def budget(limit: int | None) -> int | None:
    """Bytes that an image may take: `limit`, or half of what is free; None where unknown."""
    if limit is not None:
        return limit
    free = available()
    return None if free is None else free // 2


def check(
    config: DVMSRConfig | None,
    backend: str,
    height: int,
    width: int,
    name: str,
    rows: int | None = None,
    limit: int | None = None,
    remedy: str | None = None,
    held: int | None = None,
) -> None:
    """Whether an image of that size, called `name` in the message, fits.

    Args:
        config: None for another network than DVMSR, of which that is not known.
        rows: of the strips in which it is computed; None means at once.
        limit: bytes that it may take; None means all that are free.
        remedy: what the message advises; None for advice that fits pictures.
        held: for an image that is read and written by rows, too: as of `estimate_by_rows`.

    Raises:
        NotEnoughMemory: if it needs more.
    """
    if config is None or not known(backend):
        return
    if rows is None:
        needed = estimate(config, backend, height, width)
        usual = "cut it into parts, make it smaller or use a model that streams"
    else:
        needed = (
            estimate_strips(config, backend, height, width, rows)
            if held is None
            else estimate_by_rows(config, backend, width, rows, held)
        )
        usual = "cut it into parts or make it smaller"
    there = available() if limit is None else limit
    if there is not None and needed > there:
        raise NotEnoughMemory(
            f"{name} has {width}x{height} pixels, which need about {in_words(needed)} of memory "
            f"where {in_words(there)} are {'free' if limit is None else 'allowed'}; "
            f"{remedy or usual}"
        )


def check_result(scale: int, height: int, width: int, name: str, limit: int | None = None) -> None:
    """Whether what an image of that size becomes fits; for networks of which no more is known.

    Args:
        name, limit: as of `check`.

    Raises:
        NotEnoughMemory: if it needs more.
    """
    needed = height * width * scale**2 * _OUTPUT_BYTES
    there = available() if limit is None else limit
    if there is not None and needed > there:
        raise NotEnoughMemory(
            f"{name} has {width}x{height} pixels, whose result alone needs {in_words(needed)} of "
            f"memory where {in_words(there)} are {'free' if limit is None else 'allowed'}; cut it "
            "into parts or make it smaller"
        )


def check_frames(
    scale: int, frames: int, height: int, width: int, name: str, limit: int | None = None
) -> None:
    """Whether all frames of an animation, and what becomes of them, fit, four bytes a pixel and
    what each takes beside.

    Args:
        limit: as of `check`.

    Raises:
        NotEnoughMemory: if they need more.
    """
    needed = frames * (height * width * 4 * (1 + _FRAME_COPIES * scale**2) + _FRAME_OVERHEAD)
    there = available() if limit is None else limit
    if there is not None and needed > there:
        raise NotEnoughMemory(
            f"{name} has {frames} frames of {width}x{height} pixels, which need about "
            f"{in_words(needed)} of memory where {in_words(there)} are "
            f"{'free' if limit is None else 'allowed'}; cut it into parts or make it a video"
        )
