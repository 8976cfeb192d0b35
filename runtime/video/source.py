"""A video file: what its pictures are like, and the pictures themselves."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError
from dvmsr.runtime.video.containers import DEMUXERS
from dvmsr.runtime.video.library import decoding, import_av, url
from dvmsr.runtime.video.timeline import Timeline
from dvmsr.runtime.video.yuv import BT601, BT709, MATRICES, UNSPECIFIED, Coding, Layout, Planes
from dvmsr.utils.paths import check_input
from dvmsr.utils.threads import cores

LIMITED, FULL = 1, 2
"""FFmpeg's numbers of the two ranges."""
_HD_WIDTH, _HD_HEIGHT = 1280, 720
_PAUSE = 1
"""Seconds by which the pictures may end before the file."""
_RATE = Fraction(25)
"""Assumed of a video that tells none."""
_LOST = {
    "A53_CC": "closed captions",
    "MASTERING_DISPLAY_METADATA": "the mastering display's data (HDR)",
    "CONTENT_LIGHT_LEVEL": "light levels (HDR)",
    "DYNAMIC_HDR_PLUS": "HDR10+ data",
    "DOVI_METADATA": "Dolby Vision data",
    "DOVI_RPU_BUFFER": "Dolby Vision data",
}
"""What can go with frames and cannot be given to the encoders."""


@dataclass(frozen=True)
class Video:
    """What is known of a file's first video stream before it is decoded."""

    path: Path
    stream: int
    """Its index."""
    width: int
    height: int
    codec: str
    """FFmpeg's name: `h264`, `hevc`, `vp9`, ..."""
    coding: Coding
    """Of the planes that `frames` gives."""
    matrix: int
    """As it is to be tagged: the source's tag, or what its size implies without one."""
    primaries: int
    transfer: int
    """Tags of the source, as H.273 numbers them."""
    aspect: Fraction | None
    """Width by height of a pixel."""
    display: tuple[int, ...] | None
    """The matrix (3, 3) by which players turn and mirror pictures, if there is one."""
    time_base: Fraction
    """Seconds."""
    rate: Fraction
    """Frames per second, about."""
    count: int | None
    """Frames, about, where the file tells."""
    start: Fraction
    """Seconds that are taken off all times."""
    lasts: Fraction | None
    """Seconds until the pictures end or, where the file does not tell that, until it ends."""


@dataclass(frozen=True)
class Frame:
    """One picture."""

    planes: Planes
    pts: int
    """When it is shown, in the video's `time_base`."""
    end: int
    """Until when, as the file tells or the rate implies."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """PyAV's container for a video file; nothing but that file is read.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it is none.
    """
    av = import_av()
    check_input(path)
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    with decoding(path):
        file = av.open(url(path), container_options=options, metadata_errors="replace")
    with file:
        yield file


def probe(path: Path) -> Video:
    """Look at a video and its first frame; says on stderr what of it will not be kept.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it is no video, or cannot be decoded.
    """
    with opened(path) as file, decoding(path):
        stream = main_stream(file, path)
        frame = next(_decoded(file, stream, []), None)
        if frame is None:
            raise DvmsrError(f"{path} has no frame that can be decoded; get a complete copy of it")
        coding, tag = _coding(path, frame)
        if stream.metadata.get("alpha_mode") == "1":  # FFmpeg's decoders of VP8 and VP9 skip it
            warnings.warn(f"{path}: transparency is not kept", stacklevel=2)
        side = {data.type.name: data for data in frame.side_data}
        for lost in sorted({_LOST[name] for name in side if name in _LOST}):
            warnings.warn(f"{path}: {lost} cannot be kept", stacklevel=2)
        if frame.interlaced_frame:
            warnings.warn(
                f"{path} is interlaced, and its two fields are enlarged as one picture; "
                "deinterlace it before",
                stacklevel=2,
            )
        display = side.get("DISPLAYMATRIX")
        context = stream.codec_context
        rate = stream.average_rate or stream.guessed_rate or _RATE
        starts_anywhere = not {"mov", "matroska"} & set(file.format.name.split(","))
        return Video(
            path=path,
            stream=stream.index,
            width=frame.width,
            height=frame.height,
            codec=context.codec.canonical_name,
            coding=coding,
            matrix=tag,
            primaries=frame.color_primaries,
            transfer=frame.color_trc,
            aspect=stream.sample_aspect_ratio or None,
            display=tuple(np.frombuffer(display, np.int32).tolist()) if display else None,
            time_base=stream.time_base,
            rate=rate,
            count=_count(file, stream, rate),
            start=Fraction(file.start_time or 0, 10**6) if starts_anywhere else Fraction(0),
            lasts=_lasts(file, stream),
        )


def main_stream(file: Any, path: Path) -> Any:
    """The video stream to be enlarged: the first that is no picture of a cover.

    Raises:
        DvmsrError: if there is none.
    """
    for stream in file.streams.video:
        if not is_cover(stream) and stream.codec_context is not None:
            return stream
    raise DvmsrError(f"{path} has no video stream that can be decoded; name a video")


def is_cover(stream: Any) -> bool:
    """Whether a stream is a single picture that belongs to the file, such as its cover."""
    return bool(stream.disposition & import_av().stream.Disposition.attached_pic)


def _lasts(file: Any, stream: Any) -> Fraction | None:
    if stream.duration:
        return Fraction((stream.start_time or 0) + stream.duration) * stream.time_base
    return Fraction(file.duration, 10**6) if file.duration else None


def _count(file: Any, stream: Any, rate: Fraction) -> int | None:
    if stream.frames:
        return int(stream.frames)
    if stream.duration:
        return max(1, round(stream.duration * stream.time_base * rate))
    return max(1, round(Fraction(file.duration, 10**6) * rate)) if file.duration else None


def _coding(path: Path, frame: Any) -> tuple[Coding, int]:
    """How frames like this one are given, and the matrix to tag the result with."""
    format = frame.format
    parts = format.components
    bits = max(part.bits for part in parts)
    bits = next(depth for depth in (8, 10, 12, 16) if bits <= depth or depth == 16)
    if any(part.is_alpha for part in parts):
        warnings.warn(f"{path}: transparency is not kept", stacklevel=3)
    full = frame.color_range == FULL or format.name.startswith("yuvj")
    if format.is_rgb or format.has_palette:
        return Coding(Layout("rgb", bits), full=True), 0
    hd = frame.width >= _HD_WIDTH or frame.height >= _HD_HEIGHT
    usual = BT709 if hd else BT601
    tag = usual if frame.colorspace == UNSPECIFIED else frame.colorspace
    if tag not in MATRICES:
        warnings.warn(f"{path}: its colour matrix (number {tag}) is approximated", stacklevel=3)
    matrix = tag if tag in MATRICES else usual
    if sum(not part.is_alpha for part in parts) == 1:
        return Coding(Layout("gray", bits), matrix, full), tag
    half_rows, half_columns = format.chroma_height(64) < 64, format.chroma_width(64) < 64
    halved = (half_rows, half_columns) if half_columns else (False, False)
    return Coding(Layout("yuv", bits, halved), matrix, full), tag


def _decoded(file: Any, stream: Any, damage: list[float]) -> Iterator[Any]:
    """PyAV's frames; the seconds at which something could not be decoded are added to `damage`."""
    av = import_av()
    stream.codec_context.thread_count = min(cores(), 4)
    stream.codec_context.thread_type = "AUTO"
    last = 0.0
    packets = file.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except av.error.EOFError:
            return
        except av.FFmpegError as error:
            if isinstance(error, (OSError, MemoryError)):
                raise
            damage.append(last)
            continue
        if packet is None:
            return
        for frame in frames:
            if frame.is_corrupt:
                damage.append(frame.time or last)
            last = frame.time or last
            yield frame


def frames(video: Video, skip: int = 0) -> Iterator[Frame]:
    """All frames of a video in the order in which they are shown, but for the first `skip`.

    Their times increase: see `Timeline`. What is damaged is left out or shown as the decoder makes
    it up; that, times that start again, and a missing end are told on stderr at the end.

    Raises:
        DvmsrError: if the file cannot be read, or the pictures change their size.
    """
    repack = import_av().video.reformatter.VideoReformatter()
    damage: list[float] = []
    start = round(video.start / video.time_base)
    with opened(video.path) as file:
        stream = file.streams[video.stream]
        end, usual = 0, max(1, round(1 / (video.rate * video.time_base)))
        timeline = Timeline(video.time_base, strict=True)
        for number, frame in enumerate(_decoded(file, stream, damage)):
            if (frame.width, frame.height) != (video.width, video.height):
                raise DvmsrError(
                    f"{video.path} changes its size to {frame.width}x{frame.height} pixels at "
                    f"{frame.time or 0:.1f} s; cut it there"
                )
            pts = frame.pts if frame.pts is not None else frame.dts
            pts = end if pts is None else pts - start
            duration = frame.duration or usual
            pts += timeline.shift(pts, duration)
            end = pts + duration
            if number >= skip:
                yield Frame(_planes(repack, frame, video.coding), pts, end)
    if timeline.jumped is not None:
        warnings.warn(
            f"{video.path} holds several recordings; times start again after "
            f"{float(timeline.jumped * video.time_base):.1f} s, and are made to go on from there",
            stacklevel=2,
        )
    if damage:
        places = "1 place" if len(damage) == 1 else f"{len(damage)} places"
        warnings.warn(
            f"{video.path} is damaged at {places}, the first after {damage[0]:.1f} s; frames there "
            "are missing or made up",
            stacklevel=2,
        )
    seconds = float(end * video.time_base)
    if video.lasts is not None and seconds < video.lasts - _PAUSE:
        warnings.warn(
            f"{video.path} ends after {seconds:.1f} s, not {float(video.lasts):.1f} s as it "
            "promises; it may be cut off",
            stacklevel=2,
        )


def _planes(repack: Any, frame: Any, coding: Coding) -> Planes:
    """The samples of a frame, in arrays of their own."""
    name = coding.layout.name
    if frame.format.name != name:
        ranges = FULL if coding.full else LIMITED
        frame = repack.reformat(
            frame, format=name, src_color_range=ranges, dst_color_range=ranges, threads=1
        )
    return tuple(view(plane, coding.layout).copy() for plane in frame.planes)


def view(plane: Any, layout: Layout) -> NDArray[Any]:
    """The samples of PyAV's plane, without a copy: (rows, columns)."""
    samples = np.frombuffer(plane, layout.dtype).reshape(plane.height, -1)
    return samples[:, : plane.width]
