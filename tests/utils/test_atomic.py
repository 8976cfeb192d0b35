from __future__ import annotations

import dataclasses
import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from engine_info import INFO, PLAN
from small_model import CONFIG

from dvmsr import checkpoint
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.export import export_onnx
from dvmsr.model import DVMSR
from dvmsr.runtime.backends.trt.engine_file import write_engine
from dvmsr.train.run.state import TrainState
from dvmsr.utils.atomic import check_folder, check_target, replacing, write_atomically

Writer = Callable[[Path], object]
STATE: Any = TrainState(**{field.name: None for field in dataclasses.fields(TrainState)})
EVERY_WRITER = pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (lambda path: write_atomically(path, b"data", overwrite=True), ".png"),
        (lambda path: checkpoint.save(DVMSR(CONFIG), path), ".safetensors"),
        (lambda path: export_onnx(DVMSR(CONFIG), path, verify=False, overwrite=True), ".onnx"),
        (STATE.save, ".pt"),
        (lambda path: write_engine(path, PLAN, INFO, overwrite=True), ".engine"),
    ],
    ids=["bytes", "checkpoint", "ONNX", "training state", "engine"],
)


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
        assert "p.png cannot be written (No space left on device); make room" in str(caught.value)


@EVERY_WRITER
def test_every_writer_follows_a_link_and_takes_a_long_name(
    tmp_path: Path, write: Writer, suffix: str
) -> None:
    (tmp_path / "disk").mkdir()
    real = tmp_path / "disk" / ("n" * (255 - len(suffix)) + suffix)
    real.write_bytes(b"old")
    link = tmp_path / f"link{suffix}"
    link.symlink_to(real)
    write(link)
    assert link.is_symlink()
    assert real.read_bytes() != b"old"
    assert names(tmp_path / "disk") == [real.name]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
@EVERY_WRITER
def test_every_writer_keeps_who_may_read(tmp_path: Path, write: Writer, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    (tmp_path / f"link{suffix}").symlink_to(path.name)
    for mode, name in ((0o600, path.name), (0o640, f"link{suffix}")):
        path.write_bytes(b"old")
        path.chmod(mode)
        write(tmp_path / name)
        assert path.read_bytes() != b"old"
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
def test_nobody_else_reads_what_is_being_written_in_place_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(b"old")
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    with pytest.raises(OSError, match="wrong"), replacing(path, overwrite=True) as temporary:
        raise OSError(0, "wrong", "other")
    assert names(tmp_path) == ["p"]


@EVERY_WRITER
def test_every_writer_flushes_to_the_disk_and_tells_when_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Writer, suffix: str
) -> None:
    def fail(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DvmsrError, match=r"cannot be written \(No space left.*\); make room or"):
        write(path)
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130), ("ignored SIGHUP", 0)]
)
def test_a_signal_leaves_nothing(tmp_path: Path, name: str, code: int) -> None:
    program = f'''
import os, signal, typer
from pathlib import Path
from dvmsr.utils.cli.app import run_app
from dvmsr.utils import signals
from dvmsr.utils.atomic import replacing
if "ignored" in "{name}":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
def command():
    with replacing(Path("p.png"), overwrite=False) as temporary:
        temporary.write_bytes(b"half")
        assert len(os.listdir()) == 1
        os.kill(os.getpid(), signal.{name.split()[-1]})
        signals.check()
def build():
    app = typer.Typer()
    app.command()(command)
    return app
run_app(build)
'''
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == code
    assert names(tmp_path) == ([] if code else ["p.png"])
    assert result.stderr == ("interrupted\n" if name == "SIGINT" else "")


def test_a_block_may_refuse_what_it_wrote(tmp_path: Path) -> None:
    with pytest.raises(DvmsrError, match="wrong"), replacing(tmp_path / "p", True) as temporary:
        temporary.write_bytes(b"new")
        raise DvmsrError("wrong")
    assert names(tmp_path) == []


def test_trouble_with_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "p", True) as temporary:
        temporary.write_bytes(b"new")
        (tmp_path / "other").read_bytes()
    assert names(tmp_path) == []


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DvmsrError, match=r"p\.png cannot be written \(No such file"):
        write_atomically(tmp_path / "no" / "p.png", b"new", overwrite=False)


def test_knows_beforehand(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    check_target(path, overwrite=False)
    with pytest.raises(UsageError, match="no is not a folder; create it"):
        check_target(tmp_path / "no" / "p.png", overwrite=False)
    path.touch()
    check_target(path, overwrite=True)
    with pytest.raises(UsageError, match="--overwrite"):
        check_target(path, overwrite=False)
    with pytest.raises(DvmsrError, match="null exists and is not a file"):
        check_target(Path(os.devnull), overwrite=True)


def test_a_folder_to_be_is_tried_where_it_would_be_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(DvmsrError, match=r"file/b cannot be written to \(Not a directory\)"):
        check_folder(tmp_path / "file" / "b")
    with pytest.raises(DvmsrError, match=r"aaa cannot be written to \(File name too long\)"):
        check_folder(tmp_path / ("a" * 300))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder closed even to root")
def test_a_closed_folder_is_noticed_beforehand() -> None:
    with pytest.raises(DvmsrError, match=r"/proc cannot be written to \(/proc takes no new"):
        check_target(Path("/proc/result.csv"), overwrite=False)
