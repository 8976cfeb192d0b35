from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from dvmsr.errors import DvmsrError
from dvmsr.runtime.atomic import check_target, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "p.png", b"new", overwrite=False)
    assert (tmp_path / "p.png").read_bytes() == b"new"
    assert names(tmp_path) == ["p.png"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "p.png").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_overwrites_only_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(source: Path, target: Path) -> NoReturn:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "p.png"
    write_atomically(path, b"old", overwrite=False)
    with pytest.raises(DvmsrError, match=r"p\.png exists; allow that with --overwrite"):
        write_atomically(path, b"new", overwrite=False)
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["p.png"]


def test_writes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    write_atomically(tmp_path / "link.png", b"new", overwrite=True)
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("moment", "failure"),
    [
        ("fsync", OSError(errno.ENOSPC, "No space left on device")),
        ("fsync", KeyboardInterrupt()),
        ("link", KeyboardInterrupt()),
    ],
    ids=["disk full", "interrupt", "interrupt before the name"],
)
def test_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, failure: BaseException
) -> None:
    def fail(*arguments: object) -> NoReturn:
        raise failure

    monkeypatch.setattr(os, moment, fail)
    with pytest.raises((DvmsrError, KeyboardInterrupt)) as caught:
        write_atomically(tmp_path / "p.png", b"new", overwrite=False)
    assert names(tmp_path) == []
    if isinstance(failure, OSError):
        assert "p.png cannot be written (No space left on device); choose" in str(caught.value)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DvmsrError, match=r"p\.png cannot be written \(No such file"):
        write_atomically(tmp_path / "no" / "p.png", b"new", overwrite=False)


def test_knows_beforehand(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    check_target(path, overwrite=False)
    with pytest.raises(DvmsrError, match="no is not a folder; create it"):
        check_target(tmp_path / "no" / "p.png", overwrite=False)
    path.touch()
    check_target(path, overwrite=True)
    with pytest.raises(DvmsrError, match="--overwrite"):
        check_target(path, overwrite=False)
    with pytest.raises(DvmsrError, match="null exists and is not a file"):
        check_target(Path(os.devnull), overwrite=True)
