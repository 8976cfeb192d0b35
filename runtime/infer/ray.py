"""`dvmsr-infer --ray`: the same steps on the machines of a Ray cluster, by Ray Data (extra `ray`).

An actor in the cluster conducts, because Ray Data does not run in a client (`ray://`): it feeds
the images to a pool of workers that hold the model, and hands on what becomes of each.
"""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvmsr.errors import EXPECTED, DvmsrError, UsageError, explain
from dvmsr.runtime import memory
from dvmsr.runtime.backends.table import needs_gpu
from dvmsr.runtime.infer.cluster import Membership
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.options import Model, Options
from dvmsr.runtime.infer.results import Result
from dvmsr.runtime.infer.staging import Copies
from dvmsr.runtime.infer.steps import Steps, Work
from dvmsr.runtime.storage.places import check_target
from dvmsr.runtime.video.containers import is_video
from dvmsr.utils import threads
from dvmsr.utils.console import warn, warnings_to
from dvmsr.utils.paths import is_dir
from dvmsr.utils.pipeline import Expected

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler

RETRIES = 2
"""How often an image is tried again whose worker was lost."""
_BLOCKS = 10_000
"""The most parts that the images are divided into; those of a part are told of, and tried again,
together."""
_CHECKS = 16
"""Results that are looked for at once."""


@dataclass(frozen=True)
class WorkersModel(Model):
    """One for a worker with so many processors as it has threads, or a GPU."""

    @property
    def processors(self) -> int:
        return self.threads or 1

    @property
    def needs_gpu(self) -> bool:
        return needs_gpu(self.backend, self.name)

    def open(self) -> Upscaler:
        """Load it; an image may take the worker's share of half of what is free.

        Raises:
            DvmsrError: as `Upscaler.from_file`.
        """
        from dvmsr.runtime.upscaler import Upscaler

        limit = self.memory
        free = memory.budget(None)
        if limit is None and free is not None and not self.needs_gpu:
            limit = free * min(self.processors, threads.cores()) // threads.cores()
        try:
            return Upscaler.from_file(
                *(self.name, self.backend, self.processors, self.strip, limit, self.trust_engine)
            )
        except DvmsrError as error:
            raise type(error)(f"the worker on {socket.gethostname()} says: {error}") from None


@dataclass(frozen=True)
class Surroundings:
    """What a worker must see as the command does."""

    current: str | None
    """The folder that names are relative to; None where none are."""
    folders: tuple[str, ...] = ()

    def enter(self) -> None:
        """
        Raises:
            DvmsrError: if a folder is not there.
        """
        remedy = "name what all machines share, by full paths, or a store"
        for folder in filter(None, (self.current, *self.folders)):
            if not is_dir(Path(folder)):
                raise DvmsrError(
                    f"the worker on {socket.gethostname()} does not see {folder}; {remedy}"
                )
            if folder is self.current:
                os.chdir(folder)


@dataclass(frozen=True)
class Told:
    """What became of an image on a worker."""

    number: int
    outcome: Result | DvmsrError
    warnings: tuple[str, ...] = ()
    fatal: bool = False
    """Whether the worker cannot work at all."""
    bug: str = ""
    """A traceback."""


class Worker:
    """Holds the model, in a process in the cluster."""

    def __init__(self, model: WorkersModel, surroundings: Surroundings, options: Options) -> None:
        self.options = options
        self.ready: Upscaler | DvmsrError
        try:
            surroundings.enter()
            self.ready = model.open()
        except DvmsrError as error:
            self.ready = error

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """Work on an image: a row of Ray Data to another."""
        said: list[str] = []
        told = self._told(row["number"], pickle.loads(row["job"]), said)
        told = Told(told.number, told.outcome, tuple(said), told.fatal, told.bug)
        return {"told": pickle.dumps(told)}

    def _told(self, number: int, job: Job, said: list[str]) -> Told:
        if isinstance(self.ready, DvmsrError):
            return Told(number, self.ready, fatal=True)
        # What is there now is from a worker that was lost: all else was seen before.
        steps = Steps(self.ready, Work(self.options, lambda _: True))
        try:
            with (
                Copies(steps) as copies,
                warnings_to(lambda text: said.append(copies.renamed(text))),
            ):
                return Told(number, copies.save(job, copies.work(job, copies.load(job))))
        except EXPECTED as error:
            return Told(number, explain(error, str(job.source)))
        except Exception:
            return Told(number, DvmsrError(""), bug=traceback.format_exc())


class Conductor:
    """Runs Ray Data, in a process in the cluster."""

    def __init__(self, jobs: Sequence[Job], workers: int, settings: dict[str, Any]) -> None:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # an image that kills its worker does not stop the others
        rows = [{"number": number, "job": pickle.dumps(job)} for number, job in enumerate(jobs)]
        images = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS))
        pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1)
        self.results = iter(images.map(Worker, compute=pool, **settings).iter_rows())

    def next(self) -> bytes | None:
        """The next `Told`; None at the end."""
        row = next(self.results, None)
        return None if row is None else row["told"]


class Cluster:
    """Workers in a Ray cluster; a context manager.

    Args:
        address: as of `Membership`.
        workers: how many; None for as many as the cluster has processors, or GPUs, for.

    Raises:
        UsageError: if the address is none of these.
        MissingComponentError: if ray is missing, or the cluster has no GPU and needs one.
        DvmsrError: if the cluster cannot be reached, or a worker cannot load the model.
    """

    saved: Sequence[Result] = ()
    """What a worker has saved and not told yet nobody here knows."""

    def __init__(self, address: str, model: Model, workers: int | None) -> None:
        self._member, self._workers = Membership(address), workers
        self._model = WorkersModel(*astuple(model))

    def __enter__(self) -> Cluster:
        self._member.join("ray.data")
        try:
            self._resources = {"num_cpus": self._model.processors}
            if self._model.needs_gpu:
                self._resources["num_gpus"] = 1
            there = self._member.most_workers(self._model.processors, int(self._model.needs_gpu))
            self._size = self._workers or there
            self.scale = self._ask_scale()
        except BaseException:
            self._member.leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._member.leave()

    def _ask_scale(self) -> int:
        """Of the model, as a worker sees it."""
        ask = self._member.ray.remote(_scale).options(max_retries=0, **self._resources)
        with self._member.reached():
            answer = self._member.get(ask.remote(self._model, surroundings_of([], self._model)))
        if isinstance(answer, DvmsrError):
            raise answer
        return int(answer)

    def outcomes(
        self, jobs: Sequence[Job], work: Work
    ) -> Generator[tuple[Job, Result | Expected], None, None]:
        """What became of each image, in the order in which that is known; see `Runner`."""
        for job in jobs:
            if is_video(job.source):
                raise UsageError(f"{job.source} is a video; those are enlarged without --ray")
        with ThreadPoolExecutor(_CHECKS) as checks:
            refusals = list(checks.map(lambda job: _refusal(job, work.replaces(job)), jobs))
        left = {number: job for number, job in enumerate(jobs) if refusals[number] is None}
        yield from ((job, no) for job, no in zip(jobs, refusals, strict=True) if no is not None)
        if not left:
            return
        for job in left.values():
            work.begin(job, None)
        numbers, wanted = list(left), list(left.values())
        surroundings = surroundings_of(wanted, self._model)
        settings = {
            "fn_constructor_args": (self._model, surroundings, work.options),
            "max_restarts": -1,
            "max_task_retries": RETRIES,
            **self._resources,
        }
        with self._member.reached():
            conductor = self._member.ray.remote(Conductor).options(num_cpus=0)
            conducting = conductor.remote(wanted, min(self._size, len(wanted)), settings)
        while True:
            with self._member.reached():
                data = self._member.get(conducting.next.remote())
            if data is None:
                break
            told: Told = pickle.loads(data)
            if told.bug:
                raise RuntimeError(f"on a worker:\n{told.bug}")
            if told.fatal:
                assert isinstance(told.outcome, DvmsrError)
                raise told.outcome
            for warning in told.warnings:
                warn(warning)
            yield left.pop(numbers[told.number]), told.outcome
        for job in left.values():
            lost = f"{job.source} has lost {RETRIES + 1} workers"
            yield job, DvmsrError(f"{lost}; it may need more memory than they have")


def _scale(model: WorkersModel, surroundings: Surroundings) -> int | DvmsrError:
    try:
        surroundings.enter()
        return model.open().scale
    except DvmsrError as error:
        return error


def _refusal(job: Job, replaces: bool) -> DvmsrError | None:
    """Why there can be no result."""
    try:
        check_target(job.target, replaces)
    except EXPECTED as error:
        return explain(error, str(job.target))
    return None


def surroundings_of(jobs: Sequence[Job], model: WorkersModel) -> Surroundings:
    """What workers on these images must see."""
    places = [place for job in jobs for place in (job.source, job.target)]
    files = [place for place in places if isinstance(place, Path)]
    names = [*files, *([Path(model.name)] if Path(model.name).suffix else [])]
    relative = any(not name.is_absolute() for name in names)
    folders = sorted({str(file.parent) for file in files if is_dir(file.parent)})
    return Surroundings(str(Path.cwd()) if relative else None, tuple(folders))
