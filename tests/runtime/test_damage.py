"""Damaged files end in a sentence or a result: seeded cases; `make proof` runs thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import clip
from damage import cases, enlarged, loaded, sources, tiffs
from small_model import Models

from dvmsr.runtime.images.rows import vips

SCALE = 2


def test_whole_ones_are_done(tmp_path: Path, models: Models) -> None:
    """Otherwise the rest would say nothing."""
    whole = {**sources(), **tiffs(tmp_path)}
    findings = enlarged(whole, tmp_path, SCALE, ["--model", str(models.onnx), "--threads", "1"])
    assert not findings.faults
    assert sum(findings.outcomes.values()) == len(whole)
    assert not [outcome for outcome in findings.outcomes if "failed" in outcome]


@pytest.mark.parametrize("first", [0, 1000])
def test_damaged_pictures(tmp_path: Path, models: Models, first: int) -> None:
    files = cases({**sources(), **tiffs(tmp_path)}, first, 150)
    findings = enlarged(files, tmp_path, SCALE, ["--model", str(models.onnx), "--threads", "1"])
    assert not findings.faults
    assert sum(findings.outcomes.values()) == len(files)


@pytest.mark.skipif(not vips.installed(), reason="needs the extra large")
@pytest.mark.parametrize("first", [0, 1000])
def test_damaged_pictures_by_rows(tmp_path: Path, streaming_file: Path, first: int) -> None:
    whole = {**sources(), **tiffs(tmp_path)}
    files = cases(whole, first, 150, lambda name: not name.startswith(("moving", "several")))
    options = ["--model", str(streaming_file), "--threads", "1", "--strip", "8"]
    findings = enlarged(files, tmp_path, SCALE, options)
    assert not findings.faults
    assert sum(findings.outcomes.values()) == len(files)


@pytest.mark.parametrize("backend", ["portable", "torch"])
def test_damaged_models(tmp_path: Path, models: Models, backend: str) -> None:
    paths = (
        [models.onnx, models.onnx_fp16]
        if backend == "portable"
        else [models.safetensors, models.pth]
    )
    files = cases({path.name: path.read_bytes() for path in paths}, 0, 60)
    findings = loaded(files, tmp_path, backend)
    assert not findings.faults
    assert sum(findings.outcomes.values()) == len(files)


def test_damaged_videos(tmp_path: Path, models: Models) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    whole = {}
    for name, options in {
        "a.mp4": {"sound": "aac"},
        "b.mkv": {"subtitles": True, "extras": True},
    }.items():
        path = Path(clip(tmp_path / name, times=range(0, 400, 40), size=(32, 24), **options))
        whole[name] = path.read_bytes()
    options = ["--model", str(models.onnx), "--threads", "1"]
    findings = enlarged(cases(whole, 0, 40), tmp_path, SCALE, options)
    assert not findings.faults
    assert sum(findings.outcomes.values()) == 40
