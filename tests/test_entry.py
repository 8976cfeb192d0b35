"""The console scripts: an interrupt while they or their commands import ends them quietly."""

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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interrupt_that_an_import_takes_for_a_failure() -> None:
    """As compiled modules do."""
    program = """
import os, signal, sys

class Failing:
    @staticmethod
    def find_spec(name, *_):
        if name == "onnxruntime":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                signal.pause()
            except KeyboardInterrupt:
                raise ImportError("initialization failed")

sys.meta_path.insert(0, Failing)
from dvmsr import entry
entry.dvmsr_infer()
"""
    result = subprocess.run(
        [sys.executable, "-c", program, "examples/chelsea.png"], capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (130, "interrupted\n")
