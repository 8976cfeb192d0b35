from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.data.pairs import find_dataset
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.export import export_onnx
from dvmsr.model import DVMSR
from dvmsr.runtime import spec
from dvmsr.runtime.backends.trt.engine_file import read_info
from dvmsr.runtime.images.decode import read_image
from dvmsr.train.data.sources import find_sources
from dvmsr.train.run.state import open_run
from dvmsr.utils import atomic, paths
from dvmsr.weights.registry import find_model


def test_the_questions_have_answers(tmp_path: Path) -> None:
    """Where pathlib's own raise; a name that is too long is one such place for any user."""
    (tmp_path / "file").touch()
    for path, expected in (
        (tmp_path, (True, False, True)),
        (tmp_path / "file", (True, True, False)),
        (tmp_path / "missing", (False, False, False)),
        (tmp_path / ("n" * 300), (False, False, False)),
        (tmp_path / "file" / "below", (False, False, False)),
    ):
        assert (paths.exists(path), paths.is_file(path), paths.is_dir(path)) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="makes a pipe")
def test_refuses_what_is_no_file_to_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind, complaint in (
        (tmp_path / "missing", UsageError, "missing does not exist; check the name"),
        (tmp_path, UsageError, "is a folder; name a file"),
        (tmp_path / "pipe", UsageError, "pipe is no regular file; save its content to one"),
        (Path(os.devnull), UsageError, "null is no regular file; save its content to one"),
        (tmp_path / ("n" * 300), DvmsrError, r"n cannot be read \(File name too long\); check"),
    ):
        with pytest.raises(kind, match=complaint):
            paths.check_input(path)


LONG = Path("n" * 300, "x.png")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: atomic.check_target(LONG, overwrite=False),
        lambda: checkpoint.load(LONG.with_suffix(".pth")),
        lambda: find_dataset(LONG, 4),
        lambda: find_model(LONG.with_suffix(".onnx")),
        lambda: find_sources([LONG]),
        lambda: open_run(LONG, resume=True),
        lambda: read_image(LONG),
        lambda: read_info(LONG),
        lambda: spec.load(f"{LONG.with_suffix('.onnx')}:portable"),
    ],
    ids=[
        "target", "checkpoint", "test set", "model", "photographs", "run", "image", "engine",
        "model and backend",
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_looked_at_is_one_sentence(ask: Callable[[], object]) -> None:
    with pytest.raises(DvmsrError, match="nnn"):
        ask()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are any bytes on Linux")
def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    """Pictures may have them; what takes names as text refuses them in one sentence."""
    name = os.fsdecode(b"caf\xe9")
    for write in (
        lambda: find_model(tmp_path / f"{name}.onnx"),
        lambda: checkpoint.load(tmp_path / f"{name}.safetensors"),
        lambda: export_onnx(DVMSR(DVMSRConfig()), tmp_path / f"{name}.onnx"),
    ):
        with pytest.raises(UsageError, match="is no valid UTF-8 name; rename it"):
            write()
