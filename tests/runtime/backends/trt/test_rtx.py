"""Engines of TensorRT for RTX, which compiles kernels as it runs, over the emulated device."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import fake_tensorrt
import numpy as np
import pytest
from played_engine import PROFILE, write
from small_model import Models, random_pixels

from dvmsr.runtime import Upscaler
from dvmsr.runtime.backends.trt.engine import EngineNetwork


@pytest.fixture
def engine(
    emulated_gpu: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    module = fake_tensorrt.module(emulated_gpu, PROFILE.inputs(), fake_tensorrt.RTX_NAME)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write(tmp_path / "x.rtx.engine", models.onnx, target="rtx")


def kept(folder: Path) -> list[Path]:
    return list((folder / "cache").rglob("*.kernels"))


def test_a_graph_holds_the_kernels_of_its_shape(engine: Path, models: Models) -> None:
    """And none that stand in for them; shapes share one cache of kernels."""
    network = EngineNetwork(engine)
    on_cpu = Upscaler.from_file(models.onnx, "portable")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in [(9, 4), (9, 4), (9, 4), (5, 7), (5, 7), (9, 4)]:  # eager, recorded, replayed
            pixels = random_pixels(*size)
            np.testing.assert_array_equal(network.enlarge(pixels), on_cpu(pixels))
    assert all(prepared.graph for prepared in network._loaded.prepared.values())
    assert network._loaded.engine.compiled == [((1, 3, 9, 4),), ((1, 3, 5, 7),)]


def test_the_next_process_finds_the_kernels(engine: Path, tmp_path: Path) -> None:
    first = EngineNetwork(engine)
    assert not kept(tmp_path)
    first.enlarge(random_pixels(5, 7))
    (path,) = kept(tmp_path)
    assert path.stem == first.info.plan_sha256
    written = path.stat().st_mtime_ns
    second = EngineNetwork(engine)
    second.enlarge(random_pixels(5, 7))
    assert (second._loaded.engine.compiled, path.stat().st_mtime_ns) == ([], written)
    second.enlarge(random_pixels(6, 7))
    third = EngineNetwork(engine)
    for height in (5, 6):
        third.enlarge(random_pixels(height, 7))
    assert third._loaded.engine.compiled == []


@pytest.mark.parametrize("found", [b"", b"of another driver"], ids=["empty", "another"])
def test_kernels_that_are_refused_are_made_anew(found: bytes, engine: Path, tmp_path: Path) -> None:
    EngineNetwork(engine).enlarge(random_pixels(5, 7))
    (path,) = kept(tmp_path)
    good = path.read_bytes()
    path.write_bytes(found)
    network = EngineNetwork(engine)
    network.enlarge(random_pixels(5, 7))
    assert network._loaded.engine.compiled == [((1, 3, 5, 7),)]
    assert path.read_bytes() == good


def test_kernels_that_cannot_be_kept_are_mentioned(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    network = EngineNetwork(engine)
    with pytest.warns(UserWarning, match=r"x\.rtx\.engine are compiled again by the next process"):
        assert network.enlarge(random_pixels(5, 7)).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.enlarge(random_pixels(5, 7))


def test_a_network_that_cannot_be_recorded_runs_without_a_graph(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = EngineNetwork(engine)
    image = random_pixels(5, 7)
    first = network.enlarge(image)
    (prepared,) = network._loaded.prepared.values()
    monkeypatch.setattr(type(prepared.context), "is_stream_capturable", lambda *_: False)
    recorded: list[object] = []
    monkeypatch.setattr(network._loaded.stream, "record", recorded.append)
    with pytest.warns(UserWarning, match=r"without a CUDA graph.*RTX cannot record this network"):
        assert np.array_equal(network.enlarge(image), first)
    assert not recorded and prepared.graph is None
