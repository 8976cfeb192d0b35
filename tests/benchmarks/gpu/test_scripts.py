"""The scripts for a GPU, as far as a processor and the emulated device go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared import REPOSITORY

from dvmsr.errors import MissingComponentError
from dvmsr.kernels import cpu, nvcc

pytestmark = pytest.mark.slow

FOLDER = REPOSITORY / "benchmarks" / "gpu"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_starts(script: str) -> None:
    done = run(sys.executable, FOLDER / f"{script}.py", "--help")
    assert done.returncode == 0, done.stderr


def test_fp32_is_not_tf32_in_pytorch() -> None:
    """Whatever the switches were before; the run ends where it would load the first model."""
    script = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
import network, torch
both = torch.backends.cuda.matmul, torch.backends.cudnn
def stop():
    sys.exit(" ".join(str(one.allow_tf32) for one in both))
for one in both:
    one.allow_tf32 = True
torch.cuda.is_available = lambda: True
network.Gpu = stop
sys.argv[1:] = ["dvmsr.pth", "rlfn.pth"]
network.main()
"""
    assert run(sys.executable, "-c", script).stderr == "False False\n"


@pytest.mark.skipif(not cpu.library_path(), reason="needs the CPU's gradients as truth")
def test_correctness_on_the_emulated_device(emulated: Path) -> None:
    done = run(sys.executable, FOLDER / "correctness.py", "--small")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(" checks, 0 off\n")
    stored = json.loads((emulated / "tried-correct.json").read_text())
    assert stored["complete"]
    assert stored["predicted"] == {"off": 0}
    assert "taken as zero, as there are no facts of this run" in stored["limits"]["ex2_bias"]


SLOW = """
import sys
sys.path.insert(0, {folder!r})
import correctness
correctness.SMALL = [correctness.ScanCase(1, 4096, 8, 16, "slow decay")]
sys.argv[1:] = ["--small", "--seed", "1"]
sys.exit(correctness.main())
"""


@pytest.mark.parametrize("bias", [0.25, -0.5], ids="bias {} ulp".format)
def test_slow_decays_may_be_off_by_what_the_measured_bias_does(emulated: Path, bias: float) -> None:
    environment = {"HOST_CUDA_EX2_BIAS": str(bias)}
    slow = SLOW.format(folder=str(FOLDER))
    without = run(sys.executable, "-c", slow, **environment)
    assert without.returncode == 3
    off = [line for line in without.stderr.splitlines() if line.startswith("off: ")]
    assert off
    assert all("'dtype': 'float32'" in line for line in off)  # over 4096 tokens, in some plans

    assert run(sys.executable, FOLDER / "facts.py", "--small", **environment).returncode == 0
    facts = json.loads((emulated / "tried-facts.json").read_text())["ex2"]
    assert facts["largest_mean_ulp"] == pytest.approx(bias, abs=0.03)
    assert all(one["mean_ulp"] == pytest.approx(bias, abs=0.03) for one in facts["bins"])
    assert facts["largest_ulp"] == pytest.approx(abs(bias) + 0.5, abs=0.03)

    derived = run(sys.executable, "-c", slow, **environment)
    assert derived.returncode == 0, derived.stderr
    stored = json.loads((emulated / "tried-correct.json").read_text())
    checks = [
        one for one in stored["checks"] if (one["operator"], one["dtype"]) == ("scan", "float32")
    ]
    assert all(one["limit"] == 1e-5 + one["limit_of_bias"] for one in checks)
    assert 1e-5 < max(one["error"] for one in checks) < checks[0]["limit"] < 6e-5


def test_checks_made_ahead_are_those_made_here() -> None:
    import correctness
    import numpy as np

    jobs = [(correctness.ScanCase(1, 30, 3, 4), dtype, 1, None) for dtype in correctness.TOLERANCES]
    with correctness.Ahead(4) as ahead, correctness.Ahead(1) as here:
        assert ahead._pool is not None
        assert here._pool is None
        others, own = ahead.made(jobs), here.made(jobs)
        for job in jobs:
            one, other = own[job[:2]](), others[job[:2]]()
            for a, b in zip(one.truths, other.truths, strict=True):
                assert np.array_equal(a, b)
            assert all(np.array_equal(one.inputs[name], other.inputs[name]) for name in one.inputs)


def test_a_worse_exponential_than_was_measured_is_off(emulated: Path) -> None:
    assert run(sys.executable, FOLDER / "facts.py", "--small").returncode == 0
    slow = SLOW.format(folder=str(FOLDER))
    assert run(sys.executable, "-c", slow, HOST_CUDA_EX2_BIAS="0.5").returncode == 3


def test_scans_on_both_kinds_of_inputs(emulated: Path) -> None:
    assert run(sys.executable, FOLDER / "facts.py", "--small").returncode == 0
    done = run(sys.executable, FOLDER / "scan.py", "--small", "--lengths", "40")
    assert done.returncode == 0, done.stderr
    stored = json.loads((emulated / "tried-scan.json").read_text())
    assert stored["complete"]
    assert [one["inputs"] for one in stored["scans"]] == ["official", "student"]
    assert set(stored["inputs"]) == {"official", "student"}
    for one in stored["scans"]:
        assert {"dvmsr", "loop per channel"} <= set(one["median_us"])
        assert one["fraction_of_floor"] > 0
    assert stored["predicted"]["median_us"]


def test_a_scan_without_time_says_what_it_left_out(emulated: Path) -> None:
    done = run(sys.executable, FOLDER / "scan.py", "--small", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    stored = json.loads((emulated / "tried-scan.json").read_text())
    assert (stored["scans"], stored["complete"], len(stored["left_out"])) == ([], False, 2)


def test_unknown_inputs_are_wrong_usage(emulated: Path) -> None:
    done = run(sys.executable, FOLDER / "scan.py", "--inputs", "mine")
    sentence = "error: --inputs mine is none of official, student\n"
    assert (done.returncode, done.stderr) == (2, sentence)


def test_the_probes_compile(tmp_path: Path) -> None:
    try:
        compiler = nvcc.find()
    except MissingComponentError as error:
        pytest.skip(str(error))
    source = FOLDER / "probes.cu"
    include = f"-I{nvcc.sources() / 'cuda'}"
    target = tmp_path / "probes.cubin"
    done = run(compiler.path, "-std=c++17", "-arch=sm_90", "-cubin", include, source, "-o", target)
    assert done.returncode == 0, done.stderr
