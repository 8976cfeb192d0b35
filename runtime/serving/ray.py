"""`dvmsr serve --ray`: pictures are computed on the machines of a Ray cluster, by replicas of a
deployment under Ray Serve (extra `ray`). All else, HTTP and limits, stays in this process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dvmsr.errors import DvmsrError
from dvmsr.runtime.infer.cluster import Membership
from dvmsr.runtime.infer.ray import Surroundings, WorkersModel, surroundings_of
from dvmsr.runtime.serving.enlarging import PICTURE, RESULT, Enlarged, Wish, enlarge, refused
from dvmsr.runtime.serving.models import Description, describe, named
from dvmsr.runtime.serving.refusals import BUSY_SECONDS, Refusal
from dvmsr.utils import signals
from dvmsr.utils.console import notice, warn, warnings_to

_SECONDS_TO_END = 1
"""For a replica that is told to."""

Seen = Mapping[str, tuple[WorkersModel, Surroundings]]
"""Networks by the names that clients give, and what machines must see to open them."""


class Replicas:
    """`Models` on a cluster; a context manager.

    Args:
        address: as of `Membership`.
        models: as of `named`.
        threads: of each replica; None for one.
        workers: replicas; None for as many as the cluster has processors, or GPUs, for.

    Raises:
        UsageError: if the address is none, or two models have one name.
        MissingComponentError: if ray or a part of it is missing, or the cluster has no room.
        DvmsrError: if the cluster cannot be reached, or cannot open a model.
    """

    def __init__(
        self, address: str, models: Sequence[str], threads: int | None, workers: int | None
    ) -> None:
        self._member, self._workers = Membership(address), workers
        opened = {
            name: WorkersModel(model, "auto", threads, None, None)
            for name, model in named(models).items()
        }
        self._models = {name: (each, surroundings_of([], each)) for name, each in opened.items()}
        self._resources = {
            "num_cpus": threads or 1,
            "num_gpus": int(any(each.needs_gpu for each in opened.values())),
        }
        self._until_end = ExitStack()
        self._name = f"dvmsr-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Replicas:
        self._serve = self._member.join("ray.serve")
        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
        self._until_end.callback(self._member.leave)
        try:
            most = self._member.most_workers(*self._resources.values())
            self.at_once = self._workers or most
            self.described: Mapping[str, Description] = self._describe()
            notice(f"starting {self.at_once} replicas under Ray Serve, application {self._name}")
            self._until_end.callback(self._remove)
            self._ask, self._asking = self._deploy().enlarge, threading.Lock()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with signals.patience():
            self._until_end.close()

    def _remove(self) -> None:
        try:
            with self._member.reached():
                self._serve.delete(self._name)
        except DvmsrError as error:
            warn(f"the application {self._name} may be left: {error}")

    def _describe(self) -> dict[str, Description]:
        """The models, as the cluster sees them; what it warns of is said."""
        ask = self._member.ray.remote(_described).options(max_retries=0, **self._resources)
        with self._member.reached():
            answer = self._member.get(ask.remote(self._models))
        if isinstance(answer, DvmsrError):
            raise answer
        described, said = answer
        for text in said:
            warn(text)
        return dict(described)

    def _deploy(self) -> Any:
        """A handle of the deployment, when all replicas are there."""
        deployment = self._serve.deployment(
            Replica,
            name="upscaler",
            num_replicas=self.at_once,
            max_ongoing_requests=1,
            ray_actor_options=self._resources,
            graceful_shutdown_timeout_s=_SECONDS_TO_END,
        )
        starting = ThreadPoolExecutor(1)
        with self._member.reached():
            self._serve.start(proxy_location="Disabled")  # HTTP is ours
            application = deployment.bind(self._models)
            run = partial(self._serve.run, application, name=self._name, route_prefix=None)
            handle = starting.submit(run)  # it looks for no signals
            signals.wait(lambda seconds: wait([handle], seconds).done)
        try:
            return handle.result()
        except RuntimeError:
            raise DvmsrError(
                "Ray Serve cannot start the replicas; check that every machine of the cluster sees "
                "the models, and has the same versions of Python, Ray and dvmsr"
            ) from None

    def enlarge(
        self, source: Path, wish: Wish, most_pixels: int, show: Callable[[int, int], None]
    ) -> Enlarged:
        """As `enlarging.enlarge`, but `show` is not called."""
        with refused({str(source): PICTURE}, 500):
            data = source.read_bytes()
        answer = self._answer(data, wish, most_pixels)
        if isinstance(answer, Refusal):
            raise answer
        made, data = answer
        target = source.with_name(made.path.name)
        with refused({str(target): RESULT}, 500):
            target.write_bytes(data)
        return replace(made, path=target)

    def _answer(self, *request: object) -> Any:
        """What a replica says.

        Raises:
            Refusal: if it was lost.
        """
        from ray.exceptions import RayError, RayTaskError

        answer: list[Any] = []

        def arrived(seconds: float) -> bool:
            try:
                answer.append(response.result(timeout_s=seconds))
            except TimeoutError as error:
                if isinstance(error, RayTaskError):
                    raise
                return False
            return True

        try:
            with self._asking:  # the first one sets it up
                response = self._ask.remote(*request)
            try:
                signals.wait(arrived)
            except BaseException:
                response.cancel()
                raise
        except RayTaskError:  # a bug
            raise
        except RayError:
            sentence = "the machine that the picture was on has been lost; send it again"
            raise Refusal(503, sentence, BUSY_SECONDS) from None
        return answer[0]


class Replica:
    """Holds the networks, in a process in the cluster.

    Raises:
        DvmsrError: if one cannot be opened here.
    """

    def __init__(self, models: Seen) -> None:
        self._opened = {name: _open(*each) for name, each in models.items()}
        self._thread = ThreadPoolExecutor(1)  # Python's warnings are of the process

    async def enlarge(
        self, data: bytes, wish: Wish, most_pixels: int
    ) -> tuple[Enlarged, bytes] | Refusal:
        """A picture's file to that of a larger one, which is not at the path that is told any
        more. Where this is cancelled, the work stops."""
        gone = threading.Event()
        work = partial(self._enlarge, data, wish, most_pixels, gone)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            gone.set()

    def _enlarge(
        self, data: bytes, wish: Wish, most_pixels: int, gone: threading.Event
    ) -> tuple[Enlarged, bytes] | Refusal:
        def check() -> None:
            if gone.is_set():
                raise _Gone

        with signals.checking(check), signals.temporary_folder() as folder:
            source = folder / "picture"
            try:
                with refused({str(source): PICTURE}, 500):
                    source.write_bytes(data)
                show = lambda done, rows: signals.check()  # noqa: E731
                made = enlarge(self._opened[wish.model], source, wish, most_pixels, show)
            except Refusal as refusal:
                return refusal
            return made, made.path.read_bytes()


class _Gone(BaseException):
    """Nobody waits for the picture any more."""


def _open(model: WorkersModel, surroundings: Surroundings) -> Any:
    surroundings.enter()
    return model.open()


def _described(models: Seen) -> tuple[dict[str, Description], list[str]] | DvmsrError:
    said: list[str] = []
    try:
        with warnings_to(said.append):
            return {name: describe(_open(*each)) for name, each in models.items()}, said
    except DvmsrError as error:
        return error
