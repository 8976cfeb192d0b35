"""What is done with each picture: read, enlarge, write."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvmsr.errors import DvmsrError
from dvmsr.runtime import memory
from dvmsr.runtime.images.formats import check_sides
from dvmsr.runtime.images.picture import Header, Picture, check_frames, encode_picture, read_picture
from dvmsr.runtime.infer import by_rows
from dvmsr.runtime.infer.job import FileJob, Job
from dvmsr.runtime.infer.options import Options
from dvmsr.runtime.infer.results import (
    Result,
    VideoResult,
    result_of,
)
from dvmsr.runtime.video import enlarge as video
from dvmsr.runtime.video.containers import is_video
from dvmsr.utils.atomic import check_target, write_atomically
from dvmsr.utils.console import about

if TYPE_CHECKING:
    from PIL import Image

    from dvmsr.runtime.upscaler import Upscaler

LARGE = 4_000_000
"""Pixels of an image whose result, 16 times as many at scale 4, is better alone in the memory."""


Loaded = Picture | by_rows.Prepared | video.Prepared
"""What the image of a job is read to."""


def silent(*_: object) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Work:
    """What goes for all images, and who is told what."""

    options: Options
    replaces: Callable[[Job], bool]
    """Whether a result that is there may be replaced."""
    begin: Callable[[Job, tuple[int, int] | None], None] = silent
    """Called before a result appears, with the image's width and height where they are known."""
    show_rows: Callable[[int, int], None] = silent
    """Called for images with the number of rows that are done, and of all."""
    show_frames: video.Show = silent
    """Called for videos."""


@dataclass(frozen=True)
class Steps:
    """What is done with each image, in three steps; see `pipeline`.

    Each raises `DvmsrError` if it fails; no output is then left behind.
    """

    upscaler: Upscaler
    all: Work

    def load(self, job: FileJob) -> Loaded:
        """Read, or look into what goes by rows or is a video."""
        with about(str(job.source)):
            return self._load(job)

    def _load(self, job: FileJob) -> Loaded:
        check_target(job.target, self.all.replaces(job))
        if is_video(job.source):
            told = self.all.options.codec, self.all.options.crf, self.all.options.resume
            return video.prepare(self.upscaler, job.source, job.target, *told)
        encoding = by_rows.Encoding(self.all.options.quality, self.all.options.to_srgb)
        if by_rows.wanted(self.upscaler, job.source, job.target):
            return by_rows.prepare(self.upscaler, job.source, job.target, encoding)
        check = checking(self.upscaler, str(job.source), job.target)
        return read_picture(job.source, check, self.all.options.to_srgb)

    def is_large(self, picture: Loaded) -> bool:
        """Whether the result before should be out of the memory first."""
        if not isinstance(picture, Picture):
            return True
        return sum(frame.width * frame.height for frame in picture.frames) > LARGE

    def work(self, job: FileJob, picture: Loaded) -> tuple[Picture | None, Result]:
        """Enlarge; by rows and of videos, write, too."""
        self.all.begin(job, picture.size)
        names = str(job.source), str(job.target)
        start = time.perf_counter()
        if isinstance(picture, by_rows.Prepared):
            by_rows.enlarge(self.upscaler, picture, self.all.replaces(job), self.all.show_rows)
            seconds = time.perf_counter() - start
            sizes = picture.size, picture.enlarged_size
            return None, result_of(self.upscaler, *names, *sizes, seconds, picture.strip)
        if isinstance(picture, video.Prepared):
            counts = video.enlarge(
                self.upscaler, picture, self.all.replaces(job), self.all.show_frames
            )
            seconds = time.perf_counter() - start
            sizes = picture.size, picture.enlarged_size
            result = result_of(self.upscaler, *names, *sizes, seconds, frames=counts.frames)
            return None, VideoResult(**vars(result), resumed_frames=counts.resumed)
        try:
            enlarged = enlarge(self.upscaler, picture, self.all.show_rows)
        except DvmsrError as error:
            raise type(error)(f"{job.source} failed: {error}") from None
        seconds = time.perf_counter() - start
        frames = len(picture.frames)
        sizes = picture.size, enlarged.size
        return enlarged, result_of(self.upscaler, *names, *sizes, seconds, frames=frames)

    def save(self, job: FileJob, made: tuple[Picture | None, Result]) -> Result:
        """Write what is not written yet."""
        enlarged, result = made
        if enlarged is None:
            return result
        scale, quality = self.upscaler.scale, self.all.options.quality
        encoded = encode_picture(enlarged, job.target, scale, quality)
        write_atomically(job.target, encoded, self.all.replaces(job))
        return result


def checking(upscaler: Upscaler, source: str, target: Path) -> Callable[[Header], None]:
    """What asks of a picture, before it is decoded, whether it can be enlarged and written."""

    def check(header: Header) -> None:
        height, width, scale = header.height, header.width, upscaler.scale
        check_frames(header, source, target)
        check_sides(target, height * scale, width * scale)
        upscaler.check_memory(height, width, source)
        if header.frames > 1:
            size = (header.frames, height, width)
            memory.check_frames(scale, *size, source, upscaler.memory_limit)

    return check


def enlarge(
    upscaler: Upscaler, picture: Picture, show: Callable[[int, int], None] = silent
) -> Picture:
    """Every frame of a picture; `show` is called with the rows of all of them that are done, and
    their number."""
    before, height = 0, sum(frame.height for frame in picture.frames)

    def one(frame: Image.Image) -> Image.Image:
        nonlocal before
        enlarged = upscaler(frame, lambda done, _: show(before + done, height))
        before += frame.height
        return enlarged

    return picture.mapped(one)
