from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from processes import next_line, wait_until

from dvmsr.utils import child_python


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files called like modules that the programs import."""
    for name in ("resource", "runpy", "json", "numpy", "dvmsr"):
        (tmp_path / f"{name}.py").write_text("open('sprung', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    return tmp_path


@pytest.mark.parametrize("module", ["dvmsr.export.trt.worker", "dvmsr.runtime.bench.probe"])
def test_files_of_the_current_folder_are_not_run(module: str, trap: Path) -> None:
    done = subprocess.run(child_python.command(module, "none"), capture_output=True, text=True)
    assert done.returncode
    assert "dvmsr" in done.stderr  # the program itself ran, and missed its arguments
    assert not (trap / "sprung").exists()
    subprocess.run([sys.executable, "-m", module], capture_output=True, check=False)
    assert (trap / "sprung").exists()  # what the trap is for


def test_modules_come_from_the_import_path_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "it's ü"
    folder.mkdir()
    (folder / "said.py").write_text("import sys\nprint(__name__, sys.argv[1:])\n")
    monkeypatch.syspath_prepend(folder)
    done = subprocess.run(child_python.command("said", "a b"), capture_output=True, text=True)
    assert done.stdout == "__main__ ['a b']\n"


PARENT = """
import subprocess, sys
from dvmsr.utils import child_python
if sys.argv[1] == "as it is":
    command = child_python.command("sleeper")
else:
    command = [sys.executable, "-c", sys.argv[1]]
subprocess.run(command)
"""
ELSEWHERE = """
import os, sys, time
sys.platform = "another system"
from dvmsr.utils.child_python import end_with
end_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("child", ["as it is", ELSEWHERE], ids=["watched", "looking"])
def test_ends_with_its_parent(tmp_path: Path, child: str) -> None:
    """Which is killed, and can end nothing itself."""
    (tmp_path / "sleeper.py").write_text(
        "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, child],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    number = int(next_line(parent, parent.stdout))
    try:
        assert is_running(number)
        parent.kill()
        parent.communicate()
        wait_until(lambda: not is_running(number))
    finally:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # which nobody has asked about yet


def test_ends_at_once_where_the_parent_has_ended_before() -> None:
    command = child_python.command("this")
    command[2] = command[2].replace(f"end_with({os.getpid()})", "end_with(2)")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
