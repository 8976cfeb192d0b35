"""The CPU kernels with lower instruction sets than the best of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dvmsr.kernels import cpu

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        cpu.library_path() is None, reason="dvmsr was built without its native operators"
    ),
]

ORDER = ["baseline", "avx2", "avx512"]
BEST = ORDER.index(cpu.isa()) if cpu.library_path() else 0
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "isa",
    [
        pytest.param(isa, marks=pytest.mark.skipif(i >= BEST, reason=f"no less than {ORDER[BEST]}"))
        for i, isa in enumerate(ORDER[:-1])
    ],
)
@pytest.mark.parametrize(
    "file",
    ["ops/test_native_kernels.py", "plugins/test_cpu_mixer.py", "plugins/test_cpu_conv3x3.py"],
)
def test_lower_instruction_sets(file: str, isa: str) -> None:
    """The same tests in a process that is told to use a lower one."""
    environment = {**os.environ, "DVMSR_ISA": isa}
    asked = "from dvmsr.kernels import cpu; print(cpu.isa())"
    used = subprocess.check_output([sys.executable, "-c", asked], env=environment, text=True)
    assert used.strip() == isa
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", TESTS / file],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-2000:]


@pytest.mark.parametrize(
    ("isa", "sentence"),
    [
        ("AVX2", "DVMSR_ISA is 'AVX2'; set it to baseline, avx2, avx512, or not at all"),
        pytest.param(
            "avx512",
            "DVMSR_ISA is avx512, and the native operators have no more than "
            f"{ORDER[BEST]} on this machine; set it to that, or not at all",
            marks=pytest.mark.skipif(len(ORDER) - 1 == BEST, reason="this machine has them all"),
        ),
    ],
)
def test_an_instruction_set_that_is_not_there(isa: str, sentence: str, tmp_path: Path) -> None:
    """Not another one in silence, where ONNX Runtime calls the kernels either."""
    picture, large = TESTS.parent / "examples" / "chelsea.png", tmp_path / "large.png"
    main = "from dvmsr.runtime.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", main, picture, "-o", large],
        env={**os.environ, "DVMSR_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout, large.exists()) == (2, "", False)
    assert " ".join(result.stderr.split()) == f"error: {sentence}"
