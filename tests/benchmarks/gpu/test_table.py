"""An archive as a table, predicted beside measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import table
from predictions import PREDICTIONS, scan_us
from shared import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu" / "table.py"
CONTENTS: dict[str, dict[str, Any]] = {
    "run": {
        "steps": {
            "scan": {"outcome": "done", "seconds": 90.04, "said": ""},
            "profile": {"outcome": "not here", "seconds": 0.1, "said": "ncu is not here"},
        }
    },
    "build": {
        "predicted": PREDICTIONS["build"],
        "kernels": [
            {"kernel": "dvmsr::cuda::scan_chunks<__half, 16, true>", "reg": 122, "stack": 8},
            {"kernel": "dvmsr::cuda::scan_chunks<float, 16, true>", "reg": 128, "stack": 0},
            {"kernel": "dvmsr::cuda::relay::relay<__half, 16, true, 8>", "reg": 127, "stack": 0},
        ],
    },
    "facts": {
        "predicted": PREDICTIONS["facts"],
        "rates": {"ex2_per_second": 4e12},
        "ex2": {"largest_mean_ulp": 0.123, "largest_ulp": 1.2},
        "left_out": ["fma_per_second"],
    },
    "correct": {
        "checks": [
            {"operator": "scan", "case": "a", "dtype": "float32", "error": 1e-6, "limit": 1e-5,
             "ok": True},
            {"operator": "conv", "case": "b", "dtype": "float32", "error": 9e-5, "limit": 1e-5,
             "ok": False},
        ]
    },
    "scan": {
        "scans": [
            {
                "inputs": "student", "batch": 1, "length": 172_890, "dtype": "float16",
                "plan": "relay 5248",
                "predicted_us": scan_us("student", 1, 172_890, "float16"),
                "median_us": {"dvmsr": 201.26, "chunks 1312": 401.26, "mamba-ssm": 4012.6},
                "times_faster_than_mamba_ssm": 10.0, "fraction_of_floor": 0.224,
            }
        ]
    },
}  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    path = tmp_path / "run.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        for step, content in CONTENTS.items():
            file = folder / f"card-20260101-{step}.json"
            file.write_text(json.dumps(content))
            made.add(file, file.name)
    return path


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_predicted_beside_measured(archive: Path) -> None:
    found = list(table.rows(table.read(archive)))
    assert found == [
        ("scan", "outcome", "", "done after 90 s"),
        ("profile", "outcome", "", "not here after 0 s: ncu is not here"),
        ("build", "registers, scan_chunks<__half, 16, true>", "128", "122"),
        ("build", "registers, relay<__half, 16, true, 8>", "126", "127"),
        ("build", "bytes of stack, all kernels", "0", "8"),
        ("facts", "ex2 per second", "3.71e+12", "4e+12"),
        ("facts", "ex2.approx on [-0.2, 0], largest mean ulp", "", "0.123"),
        ("facts", "ex2.approx on [-0.2, 0], largest ulp", "at most 2", "1.2"),
        ("facts", "fma_per_second", "", "left out for want of time"),
        ("correct", "checks off", "0", "1 of 2"),
        ("correct", "float32, nearest to its limit: conv b", "at most 1e-05", "9e-05"),
        ("scan", "B1 L172890 float16 student, dvmsr, µs", "170 to 220", "201"),
        ("scan", "B1 L172890 float16 student, chunks 1312, µs", "345 to 415", "401"),
        ("scan", "B1 L172890 float16 student, mamba-ssm, µs", "", "4.01e+03"),
        ("scan", "B1 L172890 float16 student, times faster than mamba-ssm", "5 wanted", "10"),
        ("scan", "B1 L172890 float16 student, fraction of floor", "0.5 wanted", "0.224"),
    ]


def test_is_markdown(archive: Path) -> None:
    done = call(archive)
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.count("|") for line in done.stdout.splitlines()} == {5}


def test_unpacks_without_replacing(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "there"
    assert call(archive, "--unpack", target).returncode == 0
    stored = json.loads((target / "card-20260101-correct.json").read_text())
    assert stored == CONTENTS["correct"]
    again = call(archive, "--unpack", target)
    assert again.returncode == 1
    assert again.stderr.endswith(" exists; unpack into another folder\n")


@pytest.mark.parametrize("kind", ["missing", "no archive", "half of one", "of something else"])
def test_what_is_no_archive_of_a_run(kind: str, archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "given.tar.gz"
    if kind == "no archive":
        path.write_text("words")
    elif kind == "half of one":
        whole = archive.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "of something else":
        with tarfile.open(path, "w:gz") as made:
            made.add(archive, "a.json")
    done = call(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {path} ")
    assert done.stderr.count("\n") == 1
