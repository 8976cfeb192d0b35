from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from made_up_groups import VERSION_1, VERSION_2, Groups
from no_threads import refuse_threads

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.utils import threads


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """On a machine with eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return Groups(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        (("max 100000", "max 100000"), 8),
        (("200000 100000", "max 100000"), 2),
        (("max 100000", "150000 100000"), 2),
        (("400000 100000", "300000 100000"), 3),
        (("10000 100000", "max 100000"), 1),
        (("1600000 100000", "max 100000"), 8),
        (("?", ""), 8),
    ],
)
def test_time_that_groups_allow(groups: Groups, limits: tuple[str, str], cores: int) -> None:
    groups.enter(VERSION_2, "/a/b")
    for folder, limit in zip(("a", "a/b"), limits, strict=True):
        groups.write(folder, cpu__max=limit)
    assert threads.cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [(-1, 8), (0, 8), (250_000, 3), (50_000, 1)], ids=str)
def test_of_the_first_version(groups: Groups, quota: int, cores: int) -> None:
    groups.enter(VERSION_1, "/a/b", controller="cpu")
    groups.write("a", cpu__cfs_quota_us=quota, cpu__cfs_period_us=100_000)
    assert threads.cores() == cores


def test_threads_to_compute_with(groups: Groups) -> None:
    assert threads.bounded(None) is None  # the backend's choice
    assert threads.bounded(3) == 3
    groups.enter(VERSION_2, "/a")
    groups.write("a", cpu__max="200000 100000")
    assert threads.bounded(None) == 2  # which a backend would not see
    assert threads.bounded(1) == 1
    with pytest.warns(UserWarning, match="8 threads are more than the 2 processors here; using 2"):
        assert threads.bounded(8) == 2
    with pytest.raises(UsageError, match="must be a positive integer, not 0"):
        threads.bounded(0)


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch)
    with pytest.raises(DvmsrError, match=r"no further thread .* \(ulimit -u"), threads.starting():
        threading.Thread(target=print).start()
    with pytest.raises(RuntimeError, match="a bug"), threads.starting():
        raise RuntimeError("a bug")


def test_a_pipe_that_is_full_is_no_want_of_threads() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(reader), os.fdopen(writer, "wb") as pipe:
        with pytest.raises(BlockingIOError) as full:
            pipe.write(bytes(1 << 20))
            pipe.flush()
        assert not threads.is_refused(full.value)
        os.set_blocking(writer, True)
        os.set_blocking(reader, False)
        while True:  # what is still to be written at the end needs room
            try:
                if not os.read(reader, 1 << 20):
                    break
            except BlockingIOError:
                break
    assert threads.is_refused(BlockingIOError(11, "fork"))
