"""Sound of discs and camcorders as other containers hold it: the same samples, in another order."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from dvmsr.runtime.video.library import import_av

_DISCS = ("pcm_bluray", "pcm_dvd")
"""FFmpeg's names of codecs that only the streams of such discs hold; of 16, 20 or 24 bits."""
_CODECS = {"s16": "pcm_s16le", "s32": "pcm_s24le"}
"""What holds all bits of a format that they are decoded to."""


def is_of_discs(stream: Any) -> bool:
    """Whether a stream's sound is held by no container that results are written in."""
    context = stream.codec_context
    if stream.type != "audio" or context is None or context.name not in _DISCS:
        return False
    return context.format is not None and context.format.name in _CODECS


def add(file: Any, stream: Any) -> Any:
    """A stream of the result for one that `is_of_discs`.

    Raises:
        ValueError: if the container does not hold it in any order.
    """
    context = stream.codec_context
    codec = _CODECS[context.format.name]
    if codec not in file.supported_codecs:
        raise ValueError(codec)
    made = file.add_stream(codec, rate=context.sample_rate, layout=context.layout.name)
    made.time_base = Fraction(1, context.sample_rate)
    return made


def rewritten(packet: Any) -> Iterator[Any]:
    """A packet of such a stream with its samples as `add`'s stream holds them; times stay."""
    for frame in packet.decode():
        samples = frame.to_ndarray()
        data = samples.astype("<i2").tobytes()
        if frame.format.name == "s32":
            data = samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
        made = import_av().Packet(data)
        made.time_base, made.pts, made.dts = packet.time_base, packet.pts, packet.dts
        made.duration = packet.duration
        yield made
