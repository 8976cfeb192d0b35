"""The work of `dvmsr-infer`: many image files through one network."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dvmsr.errors import DvmsrError, UsageError, explain
from dvmsr.runtime import by_rows, memory
from dvmsr.runtime.copies import Copies
from dvmsr.runtime.images.codec import check_sides
from dvmsr.runtime.images.picture import Header, Picture, check_frames, encode_picture, read_picture
from dvmsr.runtime.manifest import BEGUN, DONE, FAILED, SKIPPED, Manifest
from dvmsr.runtime.naming import TEMPLATE, FileJob, Job, plan
from dvmsr.runtime.storage.places import exists
from dvmsr.runtime.video import enlarge as video
from dvmsr.runtime.video.codecs import check_options
from dvmsr.runtime.video.containers import WRITTEN, is_video
from dvmsr.utils.atomic import check_target, write_atomically
from dvmsr.utils.cli.app import notice
from dvmsr.utils.pipeline import Expected, pipeline
from dvmsr.utils.progress import ProgressDisplay

if TYPE_CHECKING:
    from PIL import Image

    from dvmsr.runtime.upscaler import Upscaler

LARGE = 4_000_000
"""Pixels of an image whose result, 16 times as many at scale 4, is better alone in the memory."""


@dataclass(frozen=True)
class Result:
    """One image that was enlarged; sizes are width and height in pixels."""

    input: str
    status: str
    output: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    seconds: float
    """For the network alone or, by rows, with reading and writing."""
    model: str
    backend: str
    precision: str
    strip: int | None
    """Rows that were computed at once; None for all."""
    frames: int = 1
    """Or pages."""

    @property
    def pixels(self) -> int:
        return self.input_size[0] * self.input_size[1] * self.frames

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class VideoResult(Result):
    """One video that was enlarged."""

    resumed_frames: int = 0
    """Of the frames, those that an earlier session made."""

    @property
    def pixels(self) -> int:
        return self.input_size[0] * self.input_size[1] * (self.frames - self.resumed_frames)


@dataclass(frozen=True)
class Failure:
    """One image that was not."""

    input: str
    error: DvmsrError

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return {"input": self.input, "status": FAILED, "error": str(self.error)}


@dataclass(frozen=True)
class Skipped:
    """One image whose result is there already."""

    input: str
    output: str

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return {"input": self.input, "status": SKIPPED, "output": self.output}


@dataclass(frozen=True)
class Begun:
    """One image whose turn has come; its result, if it is there, is from this run."""

    input: str
    output: str

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return {"input": self.input, "status": BEGUN, "output": self.output}


Outcome = Result | Failure | Skipped


@dataclass(frozen=True)
class Options:
    """What the command was told about its files."""

    output: str | None = None
    template: str = TEMPLATE
    extension: str | None = None
    """Of the results, with its dot."""
    overwrite: bool = False
    skip_existing: bool = False
    manifest: Path | None = None
    resume: bool = False
    quality: int | None = None
    """Of JPEG, WebP and AVIF, from 1 to 100; None for that of the image."""
    to_srgb: bool = False
    codec: str | None = None
    """Of videos; None for their own."""
    crf: int | None = None
    """Quality of videos; None for the codec's."""

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--skip-existing keeps results, --overwrite replaces them; give one")
        check_options(self.codec, self.crf)

    def check(self, jobs: Sequence[Job]) -> None:
        """Whether they fit what is to be done.

        Raises:
            UsageError: if not.
        """
        videos = [job for job in jobs if is_video(job.source)]
        if self.resume and self.manifest is None and not videos:
            raise UsageError("--resume goes on with a manifest; name it with --manifest")
        if (self.codec, self.crf) != (None, None) and not videos:
            raise UsageError("--codec and --crf are for videos; name one or leave them out")
        if not videos and self.extension in WRITTEN:
            raise UsageError(f"--format {self.extension[1:]} is for videos; name one")
        if videos and len(videos) == len(jobs):
            if self.quality is not None or self.to_srgb:
                raise UsageError("--quality and --to-srgb are for images; leave them out")
            if self.extension is not None and self.extension not in WRITTEN:
                known = ", ".join(name[1:] for name in WRITTEN)
                raise UsageError(f"--format of a video must be one of {known}")
        for job in videos:
            if not (isinstance(job.source, Path) and isinstance(job.target, Path)):
                raise UsageError(f"{job.source} is a video; videos and results must be files here")


class Runner(Protocol):
    """What enlarges images: this process, or a cluster."""

    @property
    def scale(self) -> int:
        """How many times larger each side becomes."""

    def outcomes(
        self,
        jobs: Sequence[Job],
        options: Options,
        replaces: Callable[[Job], bool],
        begin: Callable[[Job, tuple[int, int] | None], None],
        display: ProgressDisplay,
    ) -> Generator[tuple[Job, Result | Expected], None, None]:
        """What became of each image, as soon as it is known.

        Args:
            replaces: whether a job's result may be replaced, if it is there.
            begin: called before the result appears, with width and height where they are known.
            display: told how far an image is, if that is known.
        """


@dataclass(frozen=True)
class Here:
    """This process, which reads, computes and writes at once."""

    upscaler: Upscaler

    @property
    def scale(self) -> int:
        return self.upscaler.scale

    def outcomes(
        self,
        jobs: Sequence[Job],
        options: Options,
        replaces: Callable[[Job], bool],
        begin: Callable[[Job, tuple[int, int] | None], None],
        display: ProgressDisplay,
    ) -> Generator[tuple[Job, Result | Expected], None, None]:
        """As of `Runner`, in their order."""
        work = Steps(self.upscaler, options, replaces, begin, display.rows, display.frames)
        with Copies(work) as steps:
            yield from pipeline(jobs, steps.load, steps.work, steps.save, steps.is_large)


def run(inputs: Sequence[str], runner: Runner, options: Options, as_json: bool) -> None:
    """The command: enlarge, report; ends the process if an image failed."""
    outcomes: list[Outcome] = []
    jobs = plan(inputs, options.output, runner.scale, options.template, options.extension)
    options.check(jobs)
    try:
        with closing(enlarge_all(runner, jobs, options)) as told:
            for outcome in told:
                outcomes.append(outcome)
    finally:  # an interrupt leaves the images that are done, so they are told
        if as_json:
            print(json.dumps([outcome.to_dict() for outcome in outcomes], indent=2), flush=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if failures and len(outcomes) > 1:
        names = ", ".join(failure.input for failure in failures)
        notice(f"{len(failures)} of {len(outcomes)} images failed: {names}")
        sys.exit(DvmsrError.exit_code)
    if failures:
        sys.exit(failures[0].error.exit_code)


def enlarge_all(
    runner: Runner, jobs: Sequence[Job], options: Options
) -> Generator[Outcome, None, None]:
    """Every job's outcome as soon as it is known, reported on stderr and in the manifest."""
    with ExitStack() as files:
        manifest = None
        if options.manifest is not None:
            manifest = files.enter_context(Manifest(options.manifest, options.resume))
        display = files.enter_context(ProgressDisplay(len(jobs)))
        counts = {DONE: 0, FAILED: 0, SKIPPED: 0}
        results: list[Result] = []

        def tell(outcome: Outcome) -> Outcome:
            row = outcome.to_dict()
            counts[row["status"]] += 1
            if manifest is not None and not isinstance(outcome, Skipped):
                manifest.add(row)
            if isinstance(outcome, Result):
                results.append(outcome)
                display.line(describe(outcome))
            elif isinstance(outcome, Failure):
                display.line(f"error: {outcome.error}")
            display.advance(speed(results))
            return outcome

        wanted = []
        for job in jobs:
            known = manifest is not None and manifest.has_done(job)
            if known or (options.skip_existing and exists(job.target)):
                yield tell(Skipped(str(job.source), str(job.target)))
            else:
                wanted.append(job)

        def begin(job: Job, size: tuple[int, int] | None) -> None:
            if size is not None:
                display.begin(job.source.name, *size)
            if manifest is not None:
                manifest.add(Begun(str(job.source), str(job.target)).to_dict())

        ours = frozenset[str]() if manifest is None else frozenset(manifest.begun)

        def replaces(job: Job) -> bool:
            return options.overwrite or str(job.target) in ours

        outcomes = files.enter_context(
            closing(runner.outcomes(wanted, options, replaces, begin, display))
        )
        for job, outcome in outcomes:
            if isinstance(outcome, Result):
                yield tell(outcome)
            else:
                yield tell(Failure(str(job.source), explain(outcome, str(job.source))))
        if counts[SKIPPED]:
            display.line(f"{counts[SKIPPED]} of {len(jobs)} images skipped, their results exist")
        if len(results) > 1:
            seconds = sum(result.seconds for result in results)
            display.line(f"{len(results)} images in {seconds:.1f} s, {speed(results)}")


Loaded = Picture | by_rows.Prepared | video.Prepared
"""What the image of a job is read to."""


@dataclass(frozen=True)
class Steps:
    """What is done with each image, in three steps; see `pipeline`.

    Each raises `DvmsrError` if it fails; no output is then left behind.
    """

    upscaler: Upscaler
    options: Options
    replaces: Callable[[Job], bool]
    """Whether a result that is there may be replaced."""
    begin: Callable[[Job, tuple[int, int] | None], None]
    """Called with width and height of each image when its turn comes."""
    show_rows: Callable[[int, int], None]
    """Called for images that go by rows, with the number of those done and of all."""
    show_frames: video.Show
    """Called for videos."""

    def load(self, job: FileJob) -> Loaded:
        """Read, or look into what goes by rows or is a video."""
        check_target(job.target, self.replaces(job))
        if is_video(job.source):
            told = self.options.codec, self.options.crf, self.options.resume
            return video.prepare(self.upscaler, job.source, job.target, *told)
        encoding = by_rows.Encoding(self.options.quality, self.options.to_srgb)
        if by_rows.wanted(self.upscaler, job.source, job.target):
            return by_rows.prepare(self.upscaler, job.source, job.target, encoding)
        check = checking(self.upscaler, str(job.source), job.target)
        return read_picture(job.source, check, self.options.to_srgb)

    def is_large(self, picture: Loaded) -> bool:
        """Whether the result before should be out of the memory first."""
        if not isinstance(picture, Picture):
            return True
        return sum(frame.width * frame.height for frame in picture.frames) > LARGE

    def work(self, job: FileJob, picture: Loaded) -> tuple[Picture | None, Result]:
        """Enlarge; by rows and of videos, write, too."""
        self.begin(job, picture.size)
        names = str(job.source), str(job.target)
        start = time.perf_counter()
        if isinstance(picture, by_rows.Prepared):
            by_rows.enlarge(self.upscaler, picture, self.replaces(job), self.show_rows)
            seconds = time.perf_counter() - start
            sizes = picture.size, picture.enlarged_size
            return None, result_of(self.upscaler, *names, *sizes, seconds, picture.strip)
        if isinstance(picture, video.Prepared):
            counts = video.enlarge(self.upscaler, picture, self.replaces(job), self.show_frames)
            seconds = time.perf_counter() - start
            sizes = picture.size, picture.enlarged_size
            result = result_of(self.upscaler, *names, *sizes, seconds, frames=counts.frames)
            return None, VideoResult(**vars(result), resumed_frames=counts.resumed)
        show = self.show_rows if len(picture.frames) > 1 else None
        try:
            enlarged = enlarge(self.upscaler, picture, show)
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
        scale, quality = self.upscaler.scale, self.options.quality
        encoded = encode_picture(enlarged, job.target, scale, quality)
        write_atomically(job.target, encoded, self.replaces(job))
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
    upscaler: Upscaler, picture: Picture, show: Callable[[int, int], None] | None = None
) -> Picture:
    """Every frame of a picture; `show` is called with the number of those done and of all."""
    done = 0

    def one(frame: Image.Image) -> Image.Image:
        nonlocal done
        enlarged = upscaler(frame)
        done += 1
        if show is not None:
            show(done, len(picture.frames))
        return enlarged

    return picture.mapped(one)


def result_of(
    upscaler: Upscaler,
    source: str,
    target: str,
    size: tuple[int, int],
    enlarged_size: tuple[int, int],
    seconds: float,
    strip: int | None = None,
    frames: int = 1,
) -> Result:
    """What is told of an image; sizes are width and height.

    Args:
        strip: rows that were computed at once; None for what an image in memory gets.
    """
    if strip is None:
        rows = upscaler.rows_at_once(size[1], size[0])
        strip = None if rows == size[1] else rows
    return Result(
        input=source,
        status=DONE,
        output=target,
        input_size=size,
        output_size=enlarged_size,
        seconds=round(seconds, 4),
        model=upscaler.model,
        backend=upscaler.backend,
        precision=upscaler.precision,
        strip=strip,
        frames=frames,
    )


def describe(result: Result) -> str:
    """One line about a result."""
    (w, h), (W, H) = result.input_size, result.output_size
    frames = f", {result.frames} frames" if result.frames > 1 else ""
    seconds = f"{result.seconds:.2f} s"
    return f"{result.output}: {w}x{h} -> {W}x{H}{frames} in {seconds}, {speed([result])}"


def speed(results: Sequence[Result]) -> str:
    """Input pixels per second of the network."""
    seconds = sum(result.seconds for result in results)
    rate = sum(result.pixels for result in results) / seconds if seconds else 0
    return f"{rate:,.0f} pixels/s"
