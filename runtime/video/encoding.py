"""Frames to a file of packets: one encoder, one segment."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError
from dvmsr.runtime.video.codecs import Encoding
from dvmsr.runtime.video.library import import_av
from dvmsr.runtime.video.source import FULL, LIMITED, Video, view

_FORMAT, _OTHER_FORMATS = "nut", {"prores": "mov"}
"""Container of a segment: it takes any times, but not every codec."""
_GLOBAL_HEADER = 1 << 22
_OUT_OF_ORDER = 3
"""Fewest frames that can be coded in another order than they are shown in."""


class Encoder:
    """Writes a segment; see `encoding`."""

    def __init__(self, file: Any, stream: Any, video: Video, encoding: Encoding) -> None:
        self._file = file
        self._stream = stream
        self._encoding = encoding
        self._time_base = video.time_base
        self._gray = video.coding.layout.kind == "gray"
        self._frames = 0

    def write(self, pixels: NDArray[np.uint16], pts: int) -> None:
        """Encode one picture.

        Args:
            pixels: RGB (H, W, 3); the last row and column are repeated to the encoding's size.
            pts: when it is shown, in the video's time base.
        """
        size = self._encoding.height, self._encoding.width
        edge = [(0, side - have) for side, have in zip(size, pixels.shape[:2], strict=True)]
        if any(more for _, more in edge):
            pixels = np.pad(pixels, [*edge, (0, 0)], "edge")
        coding = self._encoding.coding
        frame = import_av().VideoFrame(size[1], size[0], coding.layout.name)
        planes = coding.from_rgb(pixels)
        for number, (place, plane) in enumerate(zip(frame.planes, planes, strict=True)):
            gray = self._gray and number > 0
            view(place, coding.layout)[:] = 2 ** (coding.layout.bits - 1) if gray else plane
        frame.pts, frame.time_base = pts, self._time_base
        self._frames += 1
        self._encode(frame)

    def finish(self) -> None:
        """Encode what the encoder still holds."""
        self._encode(None)

    def _encode(self, frame: Any) -> None:
        try:
            packets = self._stream.encode(frame)
        except import_av().FFmpegError as error:
            raise DvmsrError(
                f"{self._encoding.encoder} failed ({error.strerror}); choose another --codec"
            ) from None
        if self._frames < _OUT_OF_ORDER:
            for packet in packets:
                packet.dts = packet.pts  # x265 gives whatever its memory held
        self._file.mux(packets)


@contextmanager
def encoding_to(place: Any, video: Video, encoding: Encoding) -> Iterator[Encoder]:
    """An encoder that writes a segment to a path or binary file.

    Raises:
        DvmsrError: if there is no such encoder, or it refuses its settings.
        OSError: if the file cannot be written.
    """
    av = import_av()
    format = _OTHER_FORMATS.get(encoding.codec, _FORMAT)
    with av.open(place, "w", format=format) as file:
        try:
            stream = file.add_stream(
                encoding.encoder,
                rate=video.rate,
                options=encoding.options,
                width=encoding.width,
                height=encoding.height,
            )
            context = stream.codec_context
            context.pix_fmt = encoding.coding.layout.name
            context.time_base = video.time_base
            context.thread_count = encoding.threads
            context.flags |= _GLOBAL_HEADER
            tag(context, video, encoding)
            file.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            raise DvmsrError(
                f"{encoding.encoder} cannot encode {encoding.width}x{encoding.height} pixels of "
                f"{video.path} ({getattr(error, 'strerror', None) or error}); "
                "choose another --codec"
            ) from None
        yield Encoder(file, stream, video, encoding)


def tag(context: Any, video: Video, encoding: Encoding) -> None:
    """Tell an encoder or a stream the meaning of colours and the shape of pixels."""
    coding = encoding.coding
    converted = video.coding.layout.kind == "rgb" and coding.layout.kind != "rgb"
    context.color_range = FULL if coding.full else LIMITED
    context.colorspace = coding.matrix if converted else video.matrix
    context.color_primaries = video.primaries
    context.color_trc = video.transfer
    if video.aspect is not None:
        context.sample_aspect_ratio = Fraction(video.aspect)
