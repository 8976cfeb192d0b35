"""`make quick` leaves nothing out altogether."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from shared import REPOSITORY


@pytest.mark.slow
def test_every_room_has_a_quick_test() -> None:
    """A room is a folder with Python files; its tests lie in the folder of that name."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["--collect-only", "-q", "-m", "not slow"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    tested = {str(Path(line.split("::")[0]).parent) for line in done.stdout.splitlines()}
    rooms = {
        path.parent.relative_to(REPOSITORY / "dvmsr")
        for path in (REPOSITORY / "dvmsr").rglob("*.py")
    }
    for link in ("export", "runtime"):  # which rglob does not follow
        rooms |= {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / link).rglob("*.py")}
    assert {str("tests" / room) for room in rooms} <= tested
