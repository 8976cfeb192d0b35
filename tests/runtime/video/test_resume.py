"""Videos that are interrupted, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import processes
import pytest
from clips import REGULAR, all_planes, clip, packets, times
from small_model import Models

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.upscaler import Upscaler
from dvmsr.runtime.video import enlarge
from dvmsr.runtime.video.parts import Parts, folder_of

Infer = Callable[..., int]
MODEL = ("--model", "m.onnx", "--backend", "portable", "--threads", "1")
SHORT = "from dvmsr.runtime.video import enlarge; enlarge.segment_length = lambda video: 3\n"
MAIN = "from dvmsr.runtime.cli import main; main()"
EIGHTH_FRAME = """
from pathlib import Path
from dvmsr.runtime.upscaler import Upscaler
from processes import wait_until
call, count = Upscaler.__call__, 0
def counted(upscaler, image):
    global count
    count += 1
    if count == 8:
        wait_until(lambda: any(Path().glob("*.parts/*.tmp")))  # the seventh is being saved
        {what}
    return call(upscaler, image)
Upscaler.__call__ = counted
"""
KILL = EIGHTH_FRAME.format(what="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
INTERRUPT = EIGHTH_FRAME.format(what="import os, signal; os.kill(os.getpid(), signal.SIGINT)")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enlarge, "segment_length", lambda video: 3)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SHORT + code + MAIN, *arguments, *MODEL]
    environment = {**os.environ, "PYTHONPATH": str(Path(processes.__file__).parent)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=processes.LIMIT
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"m.onnx"}


def begun(folder: Path, name: str, codec: str) -> None:
    """Leaves the first two of four segments of a video."""
    clip(name, codec, sound="aac")
    assert run(KILL, name).returncode == -signal.SIGKILL
    assert names(folder) == {name, f"in_x2{Path(name).suffix}.parts"}


def test_a_killed_command_goes_on(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same file as from an uninterrupted run, but for the first frames not made again.

    In FFV1, as x264 does not always make the same of the same frames.
    """
    begun(folder, "in.mkv", "ffv1")
    assert len(list(Path("in_x2.mkv.parts").glob("*.json"))) == 3  # with the settings
    assert infer("in.mkv", *MODEL) == 2
    assert capsys.readouterr().err == (
        "error: in_x2.mkv.parts holds the beginning of in_x2.mkv; go on with --resume or delete "
        "the folder\n"
    )
    assert infer("in.mkv", "--resume", "--json", *MODEL) == 0
    entry = json.loads(capsys.readouterr().out)[0]
    assert (entry["frames"], entry["resumed_frames"]) == (12, 6)
    assert names(folder) == {"in.mkv", "in_x2.mkv"}
    assert infer("in.mkv", "-o", "whole.mkv", *MODEL) == 0
    assert packets("in_x2.mkv", "video") == packets("whole.mkv", "video")
    assert times("in_x2.mkv") == times("in.mkv")
    for resumed, whole in zip(all_planes("in_x2.mkv"), all_planes("whole.mkv"), strict=True):
        for a, b in zip(resumed, whole, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("000001.segment", slice(-9)),
        ("000001.segment", None),
        ("000001.json", slice(-9)),
        ("000000.segment", slice(0)),
    ],
    ids=["cut", "missing", "times", "first"],
)
def test_damaged_segments_are_made_again(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str], name: str, left: slice | None
) -> None:
    """Also bad times, and with those after it."""
    clip("in.mkv", "ffv1", times=REGULAR[:6])
    assert infer("in.mkv", "-o", "whole.mkv", *MODEL) == 0
    parts = folder / "in_x2.mkv.parts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enlarge, "join", failing)
        assert infer("in.mkv", *MODEL) == 1
    if left is None:
        (parts / name).unlink()
    else:
        (parts / name).write_bytes((parts / name).read_bytes()[left])
    capsys.readouterr()
    assert infer("in.mkv", "--resume", *MODEL) == 0
    damaged = f"in_x2.mkv.parts/{Path(name).stem}.segment is damaged; it is made again"
    assert damaged in capsys.readouterr().err
    assert packets("in_x2.mkv", "video") == packets("whole.mkv", "video")


def failing(*arguments: Any) -> NoReturn:
    raise DvmsrError("no")


@pytest.mark.slow
def test_ctrl_c_keeps_segments(folder: Path, infer: Infer) -> None:
    clip("in.mp4")
    result = run(INTERRUPT, "in.mp4", "--json")
    assert result.returncode == 130
    assert result.stderr.splitlines() == [
        "6 frames are kept in in_x2.mp4.parts; go on with --resume",
        "interrupted",
    ]
    assert json.loads(result.stdout) == []
    assert not list(folder.rglob("*.tmp"))
    assert infer("in.mp4", "--resume", *MODEL) == 0
    assert times("in_x2.mp4") == times("in.mp4")


def test_an_early_interrupt_leaves_nothing(
    folder: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(upscaler: Upscaler, image: Any) -> NoReturn:
        raise KeyboardInterrupt

    clip("in.mp4")
    monkeypatch.setattr(Upscaler, "__call__", interrupted)
    assert infer("in.mp4", *MODEL) == 130
    assert names(folder) == {"in.mp4"}


@pytest.mark.slow
def test_with_a_manifest(folder: Path, infer: Infer) -> None:
    clip("in.mp4")
    assert run(KILL, "in.mp4", "--manifest", "m.jsonl").returncode == -signal.SIGKILL
    assert infer("in.mp4", "--manifest", "m.jsonl", "--resume", *MODEL) == 0
    rows = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["begun", "begun", "done"]
    assert rows[-1]["resumed_frames"] == 6


@pytest.mark.slow
def test_nothing_is_mixed(
    folder: Path, infer: Infer, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(folder, "in.mp4", "libx264")
    before = {path: path.read_bytes() for path in Path("in_x2.mp4.parts").iterdir()}

    def refused(*options: str) -> str:
        capsys.readouterr()
        assert infer("in.mp4", "--resume", *options) == 2
        return capsys.readouterr().err

    assert "begun with another codec or quality;" in refused("--crf", "30", *MODEL)
    assert "another codec or quality;" in refused("--codec", "hevc", *MODEL)
    fp16 = ("--model", str(models.onnx_fp16), "--backend", "portable")
    assert "begun with another model;" in refused(*fp16)
    clip("in.mp4", times=REGULAR[:-1])
    assert "begun with another source;" in refused(*MODEL)
    assert before == {path: path.read_bytes() for path in Path("in_x2.mp4.parts").iterdir()}


def test_a_folder_of_something_else_is_left_alone(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    clip("in.mp4")
    Path("in_x2.mp4.parts").mkdir()
    Path("in_x2.mp4.parts/precious").write_text("text")
    assert infer("in.mp4", "--resume", *MODEL) == 2
    assert "in_x2.mp4.parts holds something else than parts" in capsys.readouterr().err
    assert Path("in_x2.mp4.parts/precious").read_text() == "text"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        Parts(tmp_path / "a.mp4", {}),
        pytest.raises(DvmsrError, match="in use by another process"),
    ):
        Parts(tmp_path / "a.mp4", {})
    with Parts(tmp_path / "a.mp4", {}):
        pass
    assert not folder_of(tmp_path / "a.mp4").exists()


def test_a_segment_counts_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    with Parts(target, {"source": ["a", (1, 2)]}) as parts:
        with parts.adding() as segment:
            segment.path.write_bytes(b"one")
            segment.pts += [0, 5]
            segment.end = 9
        with pytest.raises(RuntimeError), parts.adding() as segment:
            segment.path.write_bytes(b"half")
            raise RuntimeError
    (folder_of(target) / "000001.segment").write_bytes(b"no times")
    with Parts(target, {"source": ["a", (1, 2)]}) as parts:
        assert parts.frames == 2
        assert [(s.path.read_bytes(), s.pts, s.end) for s in parts.segments] == [
            (b"one", [0, 5], 9)
        ]
    with pytest.raises(UsageError, match="begun with another source"):
        Parts(target, {"source": ["b", (1, 2)]})


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3000, 30_000], ids=["segment", "result"])
def test_a_full_disk(folder: Path, infer: Infer, limit: int) -> None:
    """A limit on the size of files fails in mid-write like a full disk."""
    clip("in.mkv", "ffv1", size=(32, 24), sound="aac")
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    result = run(limited, "in.mkv")
    assert result.returncode == 1
    *kept, error = result.stderr.splitlines()
    assert error.startswith("error: in_x2.mkv")
    assert "cannot be written (File too large)" in error
    assert not list(folder.rglob("*.tmp"))
    assert not Path("in_x2.mkv").exists()
    assert kept == (
        [] if limit == 3000 else ["12 frames are kept in in_x2.mkv.parts; go on with --resume"]
    )
    assert infer("in.mkv", "--resume", *MODEL) == 0
    assert names(folder) == {"in.mkv", "in_x2.mkv"}
