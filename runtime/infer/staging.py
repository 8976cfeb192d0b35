"""Pictures in stores, worked on as files: copied from there before, and to there after."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dvmsr.errors import EXPECTED, explain
from dvmsr.runtime.infer.job import FileJob, Job
from dvmsr.runtime.storage.places import Remote

if TYPE_CHECKING:
    from dvmsr.runtime.infer.results import Result
    from dvmsr.runtime.infer.steps import Steps


class Copies:
    """`Steps` for pictures that may be in a store; a context manager.

    What lies on this machine is worked on where it is. Of all else there is a copy in a temporary
    folder from the first step to the last. Messages name the object in place of its copy.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = replace(steps, begin=self._begin)
        self._tell = steps.begin
        self._files: dict[Job, FileJob] = {}
        self._numbers = count()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Copies:
        self._show = warnings.showwarning

        def show(message: Warning | str, *where: Any, **how: Any) -> None:
            self._show(self._renamed(str(message)), *where, **how)

        warnings.showwarning = show
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        warnings.showwarning = self._show
        if self._folder is not None:
            self._folder.cleanup()

    def load(self, job: Job) -> Any:
        """Copy here, and then as `Steps.load`."""
        with self._working_on(job):
            if isinstance(job.target, Remote):
                job.target.check_target(self._steps.replaces(job))
            files = self._files[job] = self._files_for(job)
            if isinstance(job.source, Remote):
                job.source.download(files.source)
            return self._steps.load(files)

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
            if isinstance(job.target, Remote):
                job.target.upload(files.target, self._steps.replaces(job))
            return replace(result, input=str(job.source), output=str(job.target))

    def _files_for(self, job: Job) -> FileJob:
        source, target = job.source, job.target
        if isinstance(source, Path) and isinstance(target, Path):
            return FileJob(source, target)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="dvmsr-")
        folder = Path(self._folder.name, str(next(self._numbers)))
        folder.mkdir()
        return FileJob(
            source if isinstance(source, Path) else folder / f"in{source.suffix}",
            target if isinstance(target, Path) else folder / f"out{target.suffix}",
        )

    @contextmanager
    def _working_on(self, job: Job, last: bool = False) -> Iterator[None]:
        """After a failure, which becomes a sentence, or the last step, the copies go."""
        try:
            yield
        except EXPECTED as error:
            last = True
            failure = explain(error, str(job.source))
            raise type(failure)(self._renamed(str(failure))) from None
        finally:
            files = self._files.pop(job, None) if last else None
            for copy in () if files is None else (files.source, files.target):
                if self._folder is not None and Path(self._folder.name) in copy.parents:
                    shutil.rmtree(copy.parent, ignore_errors=True)

    def _renamed(self, text: str) -> str:
        for job, files in list(self._files.items()):
            for place, file in ((job.source, files.source), (job.target, files.target)):
                text = text.replace(str(file), str(place))
        return text

    def _begin(self, begun: Job, size: tuple[int, int] | None) -> None:
        job = next(job for job, files in list(self._files.items()) if files == begun)
        self._tell(job, size)
