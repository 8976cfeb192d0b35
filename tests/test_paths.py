from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dvmsr import paths
from dvmsr.errors import DvmsrError, UsageError


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
