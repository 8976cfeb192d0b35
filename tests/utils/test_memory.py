from __future__ import annotations

import os
from pathlib import Path

import pytest

from dvmsr.utils import memory


def test_finds_out_how_much_there_is() -> None:
    there = memory.available()
    assert there is None or 10**6 < there < 10**14


def test_respects_a_group_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 300\n")
    files = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"))
    monkeypatch.setattr(memory, "_CGROUP_FILES", (files,))
    assert memory.available() == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() != 400


def test_falls_back_to_the_size_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_files(path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", no_files)
    assert memory.available() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
