"""The folder of a run has one owner at a time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.train.config.settings import Settings
from dvmsr.train.run.folder import RunFolder


def opened(path: Path, last_step: int, until: ExitStack) -> RunFolder:
    folder = RunFolder(path, Settings(steps=1))
    folder.open(last_step, None, until)
    return folder


def test_nobody_else_may_open_it_until_it_is_closed(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with ExitStack() as until:
        opened(out, 0, until)
        with pytest.raises(UsageError, match=f"another process trains in {out}; let it end"):
            opened(out, 0, until)
    with ExitStack() as until:
        opened(out, 0, until)


def test_the_log_goes_on_from_the_last_step(tmp_path: Path) -> None:
    with ExitStack() as until:
        folder = opened(tmp_path, 0, until)
        for step in (1, 2, 3):
            folder.append({"step": step})
    with ExitStack() as until:
        opened(tmp_path, 2, until).append({"step": 3, "again": True})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert lines == ['{"step": 1}', '{"step": 2}', '{"step": 3, "again": true}']


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with ExitStack() as until, pytest.raises(DvmsrError, match="file cannot be made a folder"):
        opened(tmp_path / "file", 0, until)
