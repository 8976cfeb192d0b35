from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.manifest import Manifest


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """An image and its result, both there."""
    job = Job(tmp_path / "a.png", tmp_path / "a_x4.png")
    job.source.write_bytes(b"image")
    job.target.write_bytes(b"result")
    return job


def lines(job: Job, path: Path, *statuses: str, resume: bool = False) -> list[str]:
    with Manifest(path, resume) as manifest:
        for status in statuses:
            output = {} if status == "failed" else {"output": str(job.target)}
            manifest.add({"input": str(job.source), "status": status, **output})
    return path.read_text().splitlines()


def test_lines_tell_by_what_a_change_is_known(job: Job, tmp_path: Path) -> None:
    written = lines(job, tmp_path / "m.jsonl", "begun", "done")
    stat = job.source.stat()
    assert [json.loads(line) for line in written] == [
        {
            "input": str(job.source),
            "status": status,
            "output": str(job.target),
            "bytes": 5,
            "modified": stat.st_mtime_ns,
        }
        for status in ("begun", "done")
    ]


@pytest.mark.parametrize(
    ("statuses", "known"),
    [
        ((), False),
        (("begun",), False),
        (("begun", "done"), True),
        (("begun", "done", "begun"), True),
        (("begun", "done", "begun", "failed"), False),
        (("failed", "begun", "done"), True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_knows_what_is_done(
    job: Job, tmp_path: Path, statuses: tuple[str, ...], known: bool
) -> None:
    path = tmp_path / "m.jsonl"
    lines(job, path, *statuses)
    with Manifest(path, resume=True) as manifest:
        assert manifest.has_done(job) is known
        assert manifest.begun == ({str(job.target)} if {"begun", "done"} & set(statuses) else set())


@pytest.mark.parametrize("change", ["content", "result gone", "other result"])
def test_what_has_changed_is_not_done(job: Job, tmp_path: Path, change: str) -> None:
    path = tmp_path / "m.jsonl"
    lines(job, path, "done")
    if change == "content":
        job.source.write_bytes(b"another image")
    elif change == "result gone":
        job.target.unlink()
    else:
        (other := tmp_path / "other.png").touch()
        job = Job(job.source, other)
    with Manifest(path, resume=True) as manifest:
        assert not manifest.has_done(job)


@pytest.mark.parametrize("cut_off", ['{"input": "b.p', "{"])
def test_a_line_that_a_crash_cut_off_is_dropped(job: Job, tmp_path: Path, cut_off: str) -> None:
    path = tmp_path / "m.jsonl"
    first = lines(job, path, "done")
    with path.open("a") as file:
        file.write(cut_off)
    assert lines(job, path, "failed", resume=True)[:1] == first
    assert len(path.read_text().splitlines()) == 2


def test_is_not_begun_anew_by_accident(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    before = lines(job, path, "done")
    with pytest.raises(UsageError, match=r"m\.jsonl exists; go on with it by --resume"):
        Manifest(path, resume=False)
    assert path.read_text().splitlines() == before


@pytest.mark.parametrize(
    "text",
    [
        *("text\n", "[]\n", '{"input": "a"}\n', "3\n\n", "text", "{}"),
        '{"input": ["a"], "status": "failed"}\n',
        '{"input": ["a"], "status": "done", "output": "b"}\n',
        '{"input": "a", "status": "begun", "output": ["b"]}\n',
        '{"input": "a", "status": "done", "output": {}}\n',
        f"{'[' * 100_000}\n",
    ],
    ids=lambda text: text[:50].strip(),
)
def test_refuses_another_file_and_leaves_it_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(text)
    with pytest.raises(DvmsrError, match=r"m\.jsonl is not a manifest of dvmsr-infer \(line 1\)"):
        Manifest(path, resume=True)
    assert path.read_text() == text


def test_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing is not a folder; create"):
        Manifest(tmp_path / "missing" / "m.jsonl", resume=False)


@pytest.mark.parametrize("name", ["", os.devnull])
def test_refuses_what_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"is a folder; name a file|is no regular file"):
        Manifest(tmp_path / name, resume=True)


def test_refuses_one_that_another_process_writes(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    in_use = pytest.raises(DvmsrError, match=r"m\.jsonl is in use by another process; wait")
    with Manifest(path, resume=False), in_use:
        Manifest(path, resume=True)
    assert lines(job, path, "begun", resume=True)


def test_a_full_disk_is_told_of_the_manifest(job: Job, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = pytest.raises(DvmsrError, match=r"m\.jsonl cannot be written .*; make room, then --res")
    try:
        with full, Manifest(tmp_path / "m.jsonl", resume=False) as manifest:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
            manifest.add({"input": str(job.source), "status": "failed"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
