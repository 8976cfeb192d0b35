"""The work of `dvmsr-infer`: many image files through one network."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dvmsr.cli_support import notice, warnings_as_notices
from dvmsr.errors import EXPECTED, DvmsrError, explain
from dvmsr.runtime.atomic import check_target, write_atomically
from dvmsr.runtime.image_io import check_sides, encode, read_image
from dvmsr.runtime.naming import Job, plan
from dvmsr.runtime.progress import ProgressDisplay

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler


@dataclass(frozen=True)
class Result:
    """One image that was enlarged; sizes are width and height in pixels."""

    input: str
    output: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    seconds: float
    """For the network alone."""
    model: str
    backend: str
    precision: str

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
        return {"input": self.input, "error": str(self.error)}


def run(
    inputs: Sequence[str],
    output: str | None,
    model: str,
    backend: str,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
    strip: int | None = None,
    memory_limit: int | None = None,
) -> None:
    """The command: load, enlarge, report; ends the process if an image failed."""
    from dvmsr.runtime.upscaler import Upscaler

    outcomes: list[Result | Failure] = []
    with warnings_as_notices():
        upscaler = Upscaler.from_file(model, backend, threads, strip, memory_limit)
        jobs = plan(inputs, output, upscaler.scale)
        try:
            enlarge_all(upscaler, jobs, overwrite, outcomes)
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


def enlarge_all(
    upscaler: Upscaler, jobs: Sequence[Job], overwrite: bool, outcomes: list[Result | Failure]
) -> None:
    """Add every job's outcome to the list as soon as it is known, and report it on stderr."""
    results: list[Result] = []
    with ProgressDisplay(len(jobs)) as display:
        for job in jobs:
            display.begin(job.source.name)
            try:
                result = enlarge(upscaler, job, overwrite, display.size)
            except EXPECTED as error:
                failure = Failure(str(job.source), explain(error, str(job.source)))
                outcomes.append(failure)
                display.line(f"error: {failure.error}")
            else:
                outcomes.append(result)
                results.append(result)
                display.line(describe(result))
            display.advance(speed(results))
        if len(results) > 1:
            seconds = sum(result.seconds for result in results)
            display.line(f"{len(results)} images in {seconds:.1f} s, {speed(results)}")


def enlarge(
    upscaler: Upscaler,
    job: Job,
    overwrite: bool,
    show_size: Callable[[int, int], None] = lambda height, width: None,
) -> Result:
    """Read, enlarge and write one image.

    Args:
        show_size: called with height and width as soon as they are known.

    Raises:
        DvmsrError: if any of that fails; no output is then left behind.
    """
    check_target(job.target, overwrite)

    def check_size(height: int, width: int) -> None:
        show_size(height, width)
        check_sides(job.target, height * upscaler.scale, width * upscaler.scale)
        upscaler.check_memory(height, width, str(job.source))

    image = read_image(job.source, check_size)
    start = time.perf_counter()
    try:
        enlarged = upscaler(image)
    except DvmsrError as error:
        raise type(error)(f"{job.source} failed: {error}") from None
    seconds = time.perf_counter() - start
    write_atomically(job.target, encode(enlarged, job.target), overwrite)
    return Result(
        input=str(job.source),
        output=str(job.target),
        input_size=image.size,
        output_size=enlarged.size,
        seconds=round(seconds, 4),
        model=upscaler.model,
        backend=upscaler.backend,
        precision=upscaler.precision,
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
