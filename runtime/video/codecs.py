"""Which encoder makes a result, in which pixel format, and how well."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.runtime.video.containers import check_container
from dvmsr.runtime.video.library import import_av
from dvmsr.runtime.video.source import Video
from dvmsr.runtime.video.yuv import Coding, Layout
from dvmsr.utils.threads import cores

_AHEAD_BYTES = 256 << 20
"""Of frames that an encoder may look at before it encodes one."""
_MOST_AHEAD, _LEAST_AHEAD = 40, 4
_THREADS = 8
"""Most of an encoder; each holds frames."""


@dataclass(frozen=True)
class Codec:
    """One that results can have."""

    encoder: str
    """FFmpeg's name."""
    crf: int | None
    """Quality unless told otherwise, the lower the better; None without such a setting."""
    worst: int
    """Largest value of that."""
    containers: tuple[str, ...]
    """FFmpeg's names of those that results of this codec are written in."""
    even: bool
    """Whether sides along which chroma is halved have to be even."""
    options: dict[str, str]


_ALL = ("mp4", "mov", "matroska")
CODECS = {
    "h264": Codec("libx264", 16, 51, _ALL, True, {"preset": "medium"}),
    "hevc": Codec("libx265", 18, 51, _ALL, True, {"preset": "medium"}),
    "vp9": Codec(
        "libvpx-vp9",
        *(20, 63, ("mp4", "matroska", "webm"), False),
        {"b": "0", "deadline": "good", "cpu-used": "2", "row-mt": "1"},
    ),
    "av1": Codec("libsvtav1", 20, 63, ("mp4", "matroska", "webm"), False, {"preset": "6"}),
    "prores": Codec("prores_ks", None, 0, ("mov", "matroska"), True, {"profile": "hq"}),
    "ffv1": Codec("ffv1", None, 0, ("matroska",), False, {"level": "3", "slicecrc": "1"}),
}
"""By the names that users give, which are FFmpeg's for what these make."""
_USUAL = {"webm": "vp9"}
"""Codec for a container, of a source whose own there is no encoder for; elsewhere H.264."""


@dataclass(frozen=True)
class Encoding:
    """Everything that an encoder is told; sizes are in pixels."""

    codec: str
    coding: Coding
    width: int
    height: int
    options: dict[str, str]
    threads: int

    @property
    def encoder(self) -> str:
        return CODECS[self.codec].encoder


def check_options(codec: str | None, crf: int | None) -> None:
    """Whether options can be meant for any video.

    Raises:
        UsageError: if not.
    """
    if codec is not None and codec not in CODECS:
        raise UsageError(f"--codec must be one of {', '.join(CODECS)}, not {codec!r}")
    if codec is not None and crf is not None:
        _check_crf(codec, crf)


def choose(video: Video, scale: int, target: Path, codec: str | None, crf: int | None) -> Encoding:
    """How the result of a video is encoded; says on stderr what of its pixels is not kept.

    Args:
        codec: one of `CODECS`; None for the video's own or, where that has no encoder or the
            container cannot hold it, for what is usual in the container.
        crf: quality; None for that of `CODECS`.

    Raises:
        UsageError: if they do not fit each other or the container.
    """
    container = check_container(target)
    if codec is None:
        codec = _follow(video, container)
    elif container not in CODECS[codec].containers:
        fitting = ", ".join(n for n, known in CODECS.items() if container in known.containers)
        raise UsageError(f"{target} cannot hold {codec}; choose .mkv with -o, or of {fitting}")
    if crf is not None:
        _check_crf(codec, crf)
    known = CODECS[codec]
    layout = _layout(codec, video.coding.layout)
    if layout != video.coding.layout:
        warnings.warn(
            f"{video.path}: {codec} holds no {video.coding.layout.name} here; the result is "
            f"{layout.name}",
            stacklevel=2,
        )
    matrix_free = video.coding.layout.kind == "rgb" and layout.kind != "rgb"
    coding = Coding(layout) if matrix_free else replace(video.coding, layout=layout)
    width, height = scale * video.width, scale * video.height
    if known.even:
        width += width % 2 if layout.halved[1] else 0
        height += height % 2 if layout.halved[0] else 0
    if (width, height) != (scale * video.width, scale * video.height):
        warnings.warn(
            f"{video.path}: {codec} wants even sides; the result's last row or column is repeated",
            stacklevel=2,
        )
    quality = known.crf if crf is None else crf
    options = known.options if quality is None else {**known.options, "crf": str(quality)}
    if codec == "prores" and layout.halved == (False, False):
        options = {**options, "profile": "4444"}
    frame_bytes = 3 * height * width * (1 if layout.bits == 8 else 2)
    ahead = max(_LEAST_AHEAD, min(_MOST_AHEAD, _AHEAD_BYTES // frame_bytes))
    options = {**options, **_looking_ahead(codec, ahead)}
    return Encoding(codec, coding, width, height, options, min(cores(), _THREADS))


def _check_crf(codec: str, crf: int) -> None:
    if CODECS[codec].crf is None:
        raise UsageError(f"{codec} has no --crf; leave it out")
    if not 0 <= crf <= CODECS[codec].worst:
        raise UsageError(f"--crf of {codec} must be from 0 to {CODECS[codec].worst}, not {crf}")


def _follow(video: Video, container: str) -> str:
    usual = _USUAL.get(container, "h264")
    own = video.codec if video.codec in CODECS else usual
    codec = own if container in CODECS[own].containers else usual
    if codec == "vp9" and video.coding.layout.bits > 8:
        return "av1"  # the VP9 encoder of PyAV's wheels has 8 bits alone
    return codec


def _layout(codec: str, wanted: Layout) -> Layout:
    """That of an encoder which loses least."""
    names = {format.name for format in import_av().Codec(CODECS[codec].encoder, "w").video_formats}
    depths = [bits for bits in (8, 10, 12, 16) if bits >= wanted.bits]
    depths += [bits for bits in (12, 10, 8) if bits < wanted.bits]
    kinds = [(wanted.kind, wanted.halved)]
    if wanted.kind == "rgb" or (wanted.kind == "yuv" and wanted.halved != (True, True)):
        kinds += [("yuv", (False, False)), ("yuv", (False, True))]
    kinds += [("yuv", (True, True)), ("yuv", (False, True))]
    layouts = [Layout(kind, bits, halved) for kind, halved in kinds for bits in depths]
    return next(layout for layout in layouts if layout.name in names)


def _looking_ahead(codec: str, frames: int) -> dict[str, str]:
    """The options by which an encoder holds about so many frames, and prints nothing."""
    return {
        "h264": {"rc-lookahead": str(frames)},
        "hevc": {"x265-params": f"log-level=error:rc-lookahead={min(frames, 20)}:bframes=3"},
        "vp9": {"lag-in-frames": str(min(frames, 25))},
        "av1": {"svtav1-params": f"lookahead={frames}"},
    }.get(codec, {})
