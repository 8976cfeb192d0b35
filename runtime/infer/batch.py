"""The work of `dvmsr-infer`: many image files through one network."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dvmsr.errors import DvmsrError, explain
from dvmsr.runtime.infer.display import ProgressDisplay
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.manifest import DONE, FAILED, SKIPPED, Manifest
from dvmsr.runtime.infer.options import Options
from dvmsr.runtime.infer.plan import plan
from dvmsr.runtime.infer.results import (
    Begun,
    Failure,
    Outcome,
    Result,
    Skipped,
    describe,
    speed,
)
from dvmsr.runtime.infer.staging import Copies
from dvmsr.runtime.infer.steps import Steps, Work
from dvmsr.runtime.storage.places import exists
from dvmsr.utils import signals
from dvmsr.utils.console import notice, warn, warnings_to
from dvmsr.utils.pipeline import Expected, pipeline

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler


class Runner(Protocol):
    """What enlarges images: this process, or a cluster."""

    @property
    def saved(self) -> Sequence[Result]:
        """The images that are there, told or still to be told."""

    @property
    def scale(self) -> int:
        """How many times larger each side becomes."""

    def outcomes(
        self, jobs: Sequence[Job], work: Work
    ) -> Generator[tuple[Job, Result | Expected], None, None]:
        """What became of each image, as soon as it is known."""


@dataclass(frozen=True)
class Here:
    """This process, which reads, computes and writes at once."""

    upscaler: Upscaler
    saved: list[Result] = field(default_factory=list)

    @property
    def scale(self) -> int:
        return self.upscaler.scale

    def outcomes(
        self, jobs: Sequence[Job], work: Work
    ) -> Generator[tuple[Job, Result | Expected], None, None]:
        """As of `Runner`, in their order."""
        with (
            Copies(Steps(self.upscaler, work)) as steps,
            warnings_to(lambda text: warn(steps.renamed(text))),
        ):

            def save(job: Job, made: Any) -> Result:
                self.saved.append(steps.save(job, made))
                return self.saved[-1]

            yield from pipeline(jobs, steps.load, steps.work, save, steps.is_large)


def run(runner: Runner, options: Options) -> None:
    """The command: enlarge, report; ends the process if an image failed."""
    outcomes: list[Outcome] = []
    reported = threading.Lock()

    def report() -> None:
        """Also after an interrupt, which leaves the images that are done; but once."""
        if options.as_json and reported.acquire(blocking=False):
            rows = [*outcomes, *(result for result in runner.saved if result not in outcomes)]
            print(json.dumps([row.to_dict() for row in rows], indent=2), flush=True)

    jobs = plan(options.inputs, options.output, runner.scale, options.template, options.extension)
    options.check(jobs)
    with signals.last_words(report):
        try:
            with closing(enlarge_all(runner, jobs, options)) as told:
                for outcome in told:
                    outcomes.append(outcome)
        finally:
            report()
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if failures and len(outcomes) > 1:
        names = ", ".join(failure.input for failure in failures)
        notice(f"{len(failures)} of {len(outcomes)} images failed: {names}")
        sys.exit(DvmsrError.exit_code)
    if failures:
        sys.exit(failures[0].exit_code)


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

        work = Work(options, replaces, begin, display.rows, display.frames)
        outcomes = files.enter_context(closing(runner.outcomes(wanted, work)))
        for job, outcome in outcomes:
            if isinstance(outcome, Result):
                yield tell(outcome)
            else:
                error = explain(outcome, str(job.source))
                yield tell(Failure(str(job.source), str(error), error.exit_code))
        if counts[SKIPPED]:
            display.line(f"{counts[SKIPPED]} of {len(jobs)} images skipped, their results exist")
        if len(results) > 1:
            seconds = sum(result.seconds for result in results)
            display.line(f"{len(results)} images in {seconds:.1f} s, {speed(results)}")
