"""The console scripts: an interrupt while they import ends them without a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
if {ignored}:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

class Interrupting:
    @staticmethod
    def find_spec(name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting)
from dvmsr import entry
entry.{script}()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("script", ["dvmsr", "dvmsr_export", "dvmsr_infer"])
@pytest.mark.parametrize(("ignored", "code"), [(False, 130), (True, 0)], ids=["usual", "ignored"])
def test_an_interrupt_of_the_imports(script: str, ignored: bool, code: int) -> None:
    program = PROGRAM.format(script=script, ignored=ignored)
    result = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True
    )
    assert result.returncode == code
    assert result.stderr == ""
    assert ("Usage" in result.stdout) is ignored
