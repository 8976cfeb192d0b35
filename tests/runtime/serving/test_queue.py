"""Places, turns and the end of the work that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from dvmsr.runtime.serving.limits import Limits
from dvmsr.runtime.serving.queue import Queue
from dvmsr.runtime.serving.refusals import Refusal
from dvmsr.utils import signals

LIMITS = Limits(queue=3, per_client=2)


def until(event: threading.Event) -> Callable[[], str]:
    """Work that ends when that happens."""

    def work() -> str:
        signals.wait(event.wait)
        return "made"

    return work


def refused(queue: Queue, id: str, client: str) -> Refusal:
    with pytest.raises(Refusal) as found, queue.place(id, client):
        pass
    return found.value


def test_places_are_counted_by_client_and_in_all() -> None:
    queue = Queue(LIMITS)
    with queue.place("a", "1"):
        assert refused(queue, "a", "2").status == 409
        with queue.place("b", "1"):
            assert refused(queue, "c", "1").status == 429
            with queue.place("c", "2"):
                full = refused(queue, "d", "3")
                assert full.status == 503 and full.retry_after
                assert len(queue) == 3
    assert len(queue) == 0
    with queue.place("a", "1"):
        pass


def test_pictures_have_their_turns_one_after_the_other() -> None:
    async def both() -> None:
        queue, first_ends, second_ends = Queue(LIMITS), threading.Event(), threading.Event()
        with queue.place("a", "1") as a, queue.place("b", "2") as b:
            second = asyncio.create_task(queue.run(b, until(second_ends)))
            await asyncio.sleep(0)
            first = asyncio.create_task(queue.run(a, until(first_ends)))
            await asyncio.sleep(0)
            found = queue.progress("a")
            assert found is not None and (found["state"], found["before"]) == ("waiting", 1)
            second_ends.set()
            assert await second == "made"
            first_ends.set()
            assert await first == "made"
        assert queue.progress("a") is None
        queue.close()

    asyncio.run(both())


def test_what_is_stopped_ends_whether_it_waits_or_is_computed() -> None:
    async def both() -> None:
        queue, gone = Queue(LIMITS), Refusal(499, "gone")
        with queue.place("a", "1") as a, queue.place("b", "2") as b:
            tasks = [
                asyncio.create_task(queue.run(job, until(threading.Event()))) for job in (a, b)
            ]
            await asyncio.sleep(0)
            b.stop(gone)
            a.stop(gone)
            assert await asyncio.gather(*tasks, return_exceptions=True) == [gone, gone]
        queue.close()

    asyncio.run(both())


def test_what_takes_too_long_is_given_up() -> None:
    async def one() -> None:
        queue = Queue(Limits(seconds=0.01))
        with queue.place("a", "1") as job, pytest.raises(Refusal) as found:
            await queue.run(job, until(threading.Event()))
        assert found.value.status == 503
        queue.close()

    asyncio.run(one())


def test_a_closed_queue_takes_nothing() -> None:
    async def one() -> None:
        queue = Queue(LIMITS)
        with queue.place("a", "1") as job:
            task = asyncio.create_task(queue.run(job, until(threading.Event())))
            await asyncio.sleep(0)
            queue.close()
            with pytest.raises(Refusal, match="the service is ending"):
                await task
        assert refused(queue, "b", "1").status == 503

    asyncio.run(one())
