"""The work of `dvmsr-infer`: many image files through one network."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from dvmsr.cli_support import notice
from dvmsr.errors import DvmsrError, UsageError, explain
from dvmsr.runtime import by_rows
from dvmsr.runtime.atomic import check_target, write_atomically
from dvmsr.runtime.copies import Copies
from dvmsr.runtime.image_io import check_sides, encode, read_image
from dvmsr.runtime.manifest import BEGUN, DONE, FAILED, SKIPPED, Manifest
from dvmsr.runtime.naming import TEMPLATE, FileJob, Job, plan
from dvmsr.runtime.pipeline import pipeline
from dvmsr.runtime.places import exists
from dvmsr.runtime.progress import ProgressDisplay

if TYPE_CHECKING:
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

    @property
    def pixels(self) -> int:
        return self.input_size[0] * self.input_size[1]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)


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

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--skip-existing keeps results, --overwrite replaces them; give one")
        if self.resume and self.manifest is None:
            raise UsageError("--resume goes on with a manifest; name it with --manifest")


def run(inputs: Sequence[str], upscaler: Upscaler, options: Options, as_json: bool) -> None:
    """The command: enlarge, report; ends the process if an image failed."""
    outcomes: list[Outcome] = []
    jobs = plan(inputs, options.output, upscaler.scale, options.template, options.extension)
    try:
        for outcome in enlarge_all(upscaler, jobs, options):
            outcomes.append(outcome)
    finally:  # an interrupt leaves the images that are done, so they are told
        if as_json:
            print(json.dumps([outcome.to_dict() for outcome in outcomes], indent=2))
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if failures and len(outcomes) > 1:
        names = ", ".join(failure.input for failure in failures)
        notice(f"{len(failures)} of {len(outcomes)} images failed: {names}")
        sys.exit(DvmsrError.exit_code)
    if failures:
        sys.exit(failures[0].error.exit_code)


def enlarge_all(upscaler: Upscaler, jobs: Sequence[Job], options: Options) -> Iterator[Outcome]:
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

        def begin(job: Job, size: tuple[int, int]) -> None:
            display.begin(job.source.name, *size)
            if manifest is not None:
                manifest.add(Begun(str(job.source), str(job.target)).to_dict())

        ours = frozenset[str]() if manifest is None else frozenset(manifest.begun)
        steps = files.enter_context(
            Copies(Steps(upscaler, options.overwrite, ours, begin, display.rows))
        )
        for job, outcome in pipeline(wanted, steps.load, steps.work, steps.save, steps.is_large):
            if isinstance(outcome, Result):
                yield tell(outcome)
            else:
                yield tell(Failure(str(job.source), explain(outcome, str(job.source))))
        if counts[SKIPPED]:
            display.line(f"{counts[SKIPPED]} of {len(jobs)} images skipped, their results exist")
        if len(results) > 1:
            seconds = sum(result.seconds for result in results)
            display.line(f"{len(results)} images in {seconds:.1f} s, {speed(results)}")


@dataclass(frozen=True)
class Steps:
    """What is done with each image, in three steps; see `pipeline`.

    Each raises `DvmsrError` if it fails; no output is then left behind.
    """

    upscaler: Upscaler
    overwrite: bool
    ours: frozenset[str]
    """Results of an earlier session, which may be replaced in any case."""
    begin: Callable[[Job, tuple[int, int]], None]
    """Called with width and height of each image when its turn comes."""
    show_rows: Callable[[int, int], None]
    """Called for images that go by rows, with the number of those done and of all."""

    def load(self, job: FileJob) -> Image.Image | by_rows.Prepared:
        """Read, or look into what goes by rows."""
        check_target(job.target, self.replaces(job))
        if by_rows.wanted(self.upscaler, job.source, job.target):
            return by_rows.prepare(self.upscaler, job.source, job.target)

        def check_size(height: int, width: int) -> None:
            check_sides(job.target, height * self.upscaler.scale, width * self.upscaler.scale)
            self.upscaler.check_memory(height, width, str(job.source))

        return read_image(job.source, check_size)

    def is_large(self, image: Image.Image | by_rows.Prepared) -> bool:
        """Whether the result before should be out of the memory first."""
        if isinstance(image, by_rows.Prepared):
            return True
        return image.width * image.height > LARGE

    def work(
        self, job: FileJob, image: Image.Image | by_rows.Prepared
    ) -> tuple[Image.Image | None, Result]:
        """Enlarge; by rows, write, too."""
        self.begin(job, image.size)
        names = str(job.source), str(job.target)
        start = time.perf_counter()
        if isinstance(image, by_rows.Prepared):
            by_rows.enlarge(self.upscaler, image, self.replaces(job), self.show_rows)
            seconds = time.perf_counter() - start
            sizes = image.size, image.enlarged_size
            return None, result_of(self.upscaler, *names, *sizes, seconds, image.strip)
        try:
            enlarged = self.upscaler(image)
        except DvmsrError as error:
            raise type(error)(f"{job.source} failed: {error}") from None
        seconds = time.perf_counter() - start
        return enlarged, result_of(self.upscaler, *names, image.size, enlarged.size, seconds)

    def save(self, job: FileJob, made: tuple[Image.Image | None, Result]) -> Result:
        """Write what is not written yet."""
        enlarged, result = made
        if enlarged is None:
            return result
        write_atomically(job.target, encode(enlarged, job.target), self.replaces(job))
        return result

    def replaces(self, job: Job) -> bool:
        """Whether a result that is there may be replaced."""
        return self.overwrite or str(job.target) in self.ours


def result_of(
    upscaler: Upscaler,
    source: str,
    target: str,
    size: tuple[int, int],
    enlarged_size: tuple[int, int],
    seconds: float,
    strip: int | None = None,
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
    )


def describe(result: Result) -> str:
    """One line about a result."""
    (w, h), (W, H) = result.input_size, result.output_size
    return f"{result.output}: {w}x{h} -> {W}x{H} in {result.seconds:.2f} s, {speed([result])}"


def speed(results: Sequence[Result]) -> str:
    """Input pixels per second of the network."""
    seconds = sum(result.seconds for result in results)
    rate = sum(result.pixels for result in results) / seconds if seconds else 0
    return f"{rate:,.0f} pixels/s"
