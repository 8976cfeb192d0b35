"""Pictures that are no files here, worked on as files: copied from where they are before, and to
where they belong after."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvmsr.errors import EXPECTED, bare, explain
from dvmsr.runtime.images.decode import extension_of
from dvmsr.runtime.infer.job import FileJob, Job
from dvmsr.runtime.storage.places import Place
from dvmsr.runtime.storage.stream import Stream
from dvmsr.utils import signals

if TYPE_CHECKING:
    from dvmsr.runtime.infer.results import Result
    from dvmsr.runtime.infer.steps import Steps


class Copies:
    """`Steps` for pictures that may be in a store, or a stream; a context manager.

    What lies on this machine is worked on where it is. Of all else there is a copy in a temporary
    folder from the first step to the last. Messages name the place instead of its copy.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = replace(steps, all=replace(steps.all, begin=self._begin))
        self._tell = steps.all.begin
        self._files: dict[Job, FileJob] = {}
        self._numbers = count()
        self._until = ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> Copies:
        return self

    def __exit__(self, *_: object) -> None:
        self._until.close()

    def load(self, job: Job) -> Any:
        """Copy here, and then as `Steps.load`."""
        with self._working_on(job):
            if not isinstance(job.target, Path):
                job.target.check_target(self._steps.all.replaces(job))
            return self._steps.load(self._fetched(job))

    def is_large(self, loaded: Any) -> bool:
        """As `Steps.is_large`."""
        return self._steps.is_large(loaded)

    def work(self, job: Job, loaded: Any) -> Any:
        """As `Steps.work`."""
        with self._working_on(job):
            return self._steps.work(self._files[job], loaded)

    def save(self, job: Job, made: Any) -> Result:
        """As `Steps.save`, and then copy there."""
        with self._working_on(job, last=True):
            files = self._files[job]
            result = self._steps.save(files, made)
            if not isinstance(job.target, Path):
                job.target.upload(files.target, self._steps.all.replaces(job))
            return replace(result, input=str(job.source), output=str(job.target))

    def renamed(self, text: str) -> str:
        """A message about copies as one about what they are copies of."""
        for job, files in list(self._files.items()):
            text = text.replace(str(files.source), _called(job.source, "input"))
            text = text.replace(str(files.target), _called(job.target, "output"))
        return text

    def _fetched(self, job: Job) -> FileJob:
        source, target = job.source, job.target
        if isinstance(source, Path) and isinstance(target, Path):
            self._files[job] = FileJob(source, target)
            return self._files[job]
        if self._folder is None:
            self._folder = self._until.enter_context(signals.temporary_folder())
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        copy = source if isinstance(source, Path) else folder / f"in{source.suffix}"
        made = target if isinstance(target, Path) else folder / f"out{target.suffix}"
        self._files[job] = FileJob(copy, made)
        if not isinstance(source, Path):
            source.download(copy)
        if not made.suffix:
            self._files[job] = FileJob(copy, made.with_suffix(extension_of(copy)))
        return self._files[job]

    @contextmanager
    def _working_on(self, job: Job, last: bool = False) -> Iterator[None]:
        """After a failure, which becomes a sentence, or the last step, the copies go."""
        try:
            yield
        except EXPECTED as error:
            last = True
            failure = bare(explain(error, _called(job.source, "input")))
            raise type(failure)(self.renamed(str(failure))) from None
        finally:
            files = self._files.pop(job, None) if last else None
            for copy in () if files is None else (files.source, files.target):
                if self._folder is not None and self._folder in copy.parents:
                    shutil.rmtree(copy.parent, ignore_errors=True)

    def _begin(self, begun: Job, size: tuple[int, int] | None) -> None:
        job = next(job for job, files in list(self._files.items()) if files == begun)
        self._tell(job, size)


def _called(place: Place, role: str) -> str:
    return f"standard {role}" if isinstance(place, Stream) else str(place)
