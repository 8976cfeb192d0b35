"""A video from file to file: decoded, enlarged and encoded at once, in segments, then joined."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import dvmsr
from dvmsr.errors import DvmsrError, explain
from dvmsr.runtime.video.codecs import Encoding, choose
from dvmsr.runtime.video.containers import check_container
from dvmsr.runtime.video.encoding import Encoder, encoding_to
from dvmsr.runtime.video.joining import join, rehearse
from dvmsr.runtime.video.library import import_av
from dvmsr.runtime.video.parts import Parts, Segment, refuse_unasked
from dvmsr.runtime.video.source import Frame, Video, frames, probe
from dvmsr.utils.atomic import replacing
from dvmsr.utils.console import notice
from dvmsr.utils.paths import unreadable
from dvmsr.utils.pipeline import pipeline

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler

LONGEST, SHORTEST = 240, 48
"""Frames of a segment; between them it has `SEGMENT_PIXELS`."""
SEGMENT_PIXELS = 20_000_000
"""Of the source: minutes of work for a processor."""

_Pixels = tuple[Frame, NDArray[np.uint16]]
"""A frame, and its pixels as they are or enlarged."""
Show = Callable[[int, int | None, int], None]
"""Told how many frames are done, how many there are (about, if known), and how many of the first
were done in an earlier session."""


@dataclass(frozen=True)
class Prepared:
    """A video that is looked into; sizes are width and height in pixels."""

    video: Video
    encoding: Encoding
    target: Path
    container: str
    resume: bool

    @property
    def size(self) -> tuple[int, int]:
        return self.video.width, self.video.height

    @property
    def enlarged_size(self) -> tuple[int, int]:
        return self.encoding.width, self.encoding.height


@dataclass(frozen=True)
class Counts:
    """What became of a video."""

    frames: int
    resumed: int
    """Of these, those that were made in an earlier session."""


def prepare(
    upscaler: Upscaler, source: Path, target: Path, codec: str | None, crf: int | None, resume: bool
) -> Prepared:
    """Look into a video, and try whether its result can be encoded and written.

    Args:
        codec, crf: as of `codecs.choose`.
        resume: whether to go on with parts of the result that are there.

    Raises:
        UsageError: if there is no such file, options do not fit, or parts are there unasked.
        DvmsrError: if it cannot be read, encoded or held, or memory is too small.
        MissingComponentError: without PyAV.
    """
    container = check_container(target)
    refuse_unasked(target, resume)
    video = probe(source)
    upscaler.check_memory(video.height, video.width, str(source))
    encoding = choose(video, upscaler.scale, target, codec, crf)
    rehearse(video, encoding, target, container)
    return Prepared(video, encoding, target, container, resume)


def enlarge(upscaler: Upscaler, prepared: Prepared, overwrite: bool, show: Show) -> Counts:
    """Do the work.

    Whatever ends it early, segments that are finished stay, which is told on stderr.

    Raises:
        DvmsrError: if anything fails.
    """
    video, encoding = prepared.video, prepared.encoding
    with Parts(prepared.target, _settings(upscaler, prepared)) as parts:
        before = parts.frames
        try:
            _enlarge_frames(upscaler, prepared, parts, show)
            with replacing(prepared.target, overwrite) as temporary:
                join(parts.segments, video, encoding, temporary, prepared.container)
        except BaseException as error:
            if parts.segments:
                notice(f"{parts.frames} frames are kept in {parts.folder}; go on with --resume")
            if isinstance(error, import_av().FFmpegError) and not isinstance(error, OSError):
                raise DvmsrError(
                    f"{prepared.target} cannot be made of {video.path} ({error.strerror}); choose "
                    ".mkv with -o"
                ) from None
            raise
        parts.remove()
        return Counts(parts.frames, before)


def _enlarge_frames(upscaler: Upscaler, prepared: Prepared, parts: Parts, show: Show) -> None:
    """Make the segments that are missing."""
    video, before = prepared.video, parts.frames
    left = frames(video, before)
    show(before, video.count, before)

    def load(number: int) -> _Pixels | None:
        frame = next(left, None)
        return None if frame is None else (frame, video.coding.to_rgb(frame.planes))

    def work(number: int, loaded: _Pixels | None) -> _Pixels | None:
        return None if loaded is None else (loaded[0], upscaler(loaded[1]))

    with SegmentWriter(prepared, parts) as writer:

        def save(number: int, made: _Pixels | None) -> bool:
            if made is None:
                return False
            writer.write(*made)
            return True

        with closing(pipeline(range(sys.maxsize), load, work, save)) as outcomes:
            for number, outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise explain(outcome, str(video.path))
                if not outcome:
                    break
                show(before + number + 1, video.count, before)
        writer.finish()


class SegmentWriter:
    """Frames into segments of a fixed length; a context manager that discards an unfinished one."""

    def __init__(self, prepared: Prepared, parts: Parts) -> None:
        self._prepared = prepared
        self._parts = parts
        self._length = segment_length(prepared.video)
        self._stack = ExitStack()
        self._segment: Segment | None = None
        self._encoder: Encoder | None = None
        self._failed = False

    def write(self, frame: Frame, pixels: NDArray[np.uint16]) -> None:
        """Encode a frame, and end the segment with its last one; after a failure, nothing.

        Raises:
            DvmsrError: if the segment cannot be written.
        """
        if self._failed:
            return
        try:
            self._write(frame, pixels)
        except BaseException as error:
            self._failed = True
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise

    def _write(self, frame: Frame, pixels: NDArray[np.uint16]) -> None:
        if self._segment is None or self._encoder is None:
            self._segment = self._stack.enter_context(self._parts.adding())
            self._encoder = self._stack.enter_context(
                encoding_to(str(self._segment.path), self._prepared.video, self._prepared.encoding)
            )
        self._encoder.write(pixels, frame.pts)
        self._segment.pts.append(frame.pts)
        self._segment.end = frame.end
        if len(self._segment.pts) == self._length:
            self.finish()

    def finish(self) -> None:
        """End the segment, if there is one."""
        if self._encoder is not None:
            self._encoder.finish()
            self._stack.close()
        self._segment = self._encoder = None

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def segment_length(video: Video) -> int:
    """Frames of a segment."""
    return max(SHORTEST, min(LONGEST, SEGMENT_PIXELS // (video.width * video.height)))


def _settings(upscaler: Upscaler, prepared: Prepared) -> dict[str, Any]:
    """Everything that the parts of a result depend on."""
    video = prepared.video
    try:
        state = video.path.stat()
        with Path(upscaler.model).open("rb") as file:
            model = hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise unreadable(Path(error.filename), error) from None
    encoding = asdict(prepared.encoding)
    del encoding["threads"]
    return {
        "source": [video.path.name, state.st_size, state.st_mtime_ns],
        "model": model,
        "range of values": upscaler.network.peak,
        "backend": upscaler.backend,
        "codec or quality": encoding,
        "segment length": segment_length(video),
        "version of dvmsr or PyAV": [dvmsr.__version__, import_av().__version__],
    }
