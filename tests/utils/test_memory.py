from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_groups import VERSION_1, VERSION_2, Groups

from dvmsr.utils import memory

resource = pytest.importorskip("resource")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    return Groups(tmp_path, monkeypatch)


def limit(groups: Groups, folder: str, most: object, used: int, files: int = 0) -> None:
    stat = f"anon 1\nworkinginactive_file 1\ninactive_file {files}"
    groups.write(folder, memory__max=most, memory__current=used, memory__stat=stat)


def test_finds_out_how_much_there_is() -> None:
    there = memory.available()
    assert there is None or 10**6 < there < 10**14


@pytest.mark.parametrize("inner", ["", "a", "a/b", "a/b/c"])
def test_respects_the_limits_of_a_group_and_of_all_above(groups: Groups, inner: str) -> None:
    groups.enter(VERSION_2, "/a/b/c")
    for folder in ("a", "a/b", "a/b/c"):
        limit(groups, folder, "max", 5)
    limit(groups, inner, 1000, 900, files=300)
    assert memory.available() == 400
    limit(groups, "a/b", 700, 650)
    assert memory.available() == 50
    limit(groups, inner, "max", 0)
    limit(groups, "a/b", "max", 0)
    there = memory.available()
    assert there is not None and there > 10**6


def test_a_limit_that_slows_down_counts_too(groups: Groups) -> None:
    groups.enter(VERSION_2, "/a")
    limit(groups, "a", 10**9, 900)
    groups.write("a", memory__high=1000)
    assert memory.available() == 100


@pytest.mark.parametrize(
    ("group", "root", "folder"),
    [
        ("/docker/x", "/docker/x", ""),  # a container without its own view of groups
        ("/docker/x/y", "/docker/x", "y"),
        ("/", "/docker/x", ""),  # one that has its own, with the mount of another
        ("/../z", "/", ""),
        ("/a", "/..", ""),
    ],
)
@pytest.mark.parametrize("version", [VERSION_1, VERSION_2], ids=["1", "2"])
def test_what_a_container_sees(
    groups: Groups, version: tuple[str, str], group: str, root: str, folder: str
) -> None:
    groups.enter(version, group, root)
    if version is VERSION_2:
        limit(groups, folder, 1000, 900)
    else:
        groups.write(
            folder,
            memory__limit_in_bytes=1000,
            memory__usage_in_bytes=950,
            memory__stat="inactive_file 1\ntotal_inactive_file 50",
        )
    assert memory.available() == 100


def test_damaged_or_no_descriptions(groups: Groups, tmp_path: Path) -> None:
    there = memory.available()
    groups.enter(VERSION_2, "/a")
    for name in ("cgroup", "mountinfo"):
        (tmp_path / "proc" / name).write_text("what is this\n")
        assert memory.available() is not None
    assert there is not None


def test_falls_back_to_the_size_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_files(path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", no_files)
    assert memory.available() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_respects_the_limits_of_the_process(name: str) -> None:
    """What is said to be available can be had; not much more beside the threads to come."""
    program = (
        "import json, mmap, resource, sys\n"
        "from dvmsr.utils import memory\n"
        "limit = getattr(resource, sys.argv[1])\n"
        "resource.setrlimit(limit, (1 << 33, resource.RLIM_INFINITY))\n"
        "there = memory.available()\n"
        "had = []\n"
        "beside = sum(threads for limit, _, threads in memory._LIMITS if limit == sys.argv[1])\n"
        "beside *= memory._THREADS + memory.cores()\n"
        "for size in (there, there + beside - (8 << 20), there + beside + (8 << 20)):\n"
        "    try:\n"
        "        mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()\n"
        "        had.append(True)\n"
        "    except OSError:\n"
        "        had.append(False)\n"
        "print(json.dumps([there, had]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program, name], capture_output=True, check=True, text=True
    ).stdout
    there, had = json.loads(output)
    assert there < 1 << 33
    if there > 1 << 32:  # else the machine has less
        assert had == [True, True, False]
