"""What the scan's measurement puts on the device."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import captured
import numpy as np
import pytest
import scan as scans
import tools
from vectors import ScanCase, error, scan_inputs, scan_truth

SHAPE = scans.Shape("student", batch=2, length=70, dtype="float32")


def sequence() -> dict[str, np.ndarray]:
    """One of 30 tokens."""
    inputs = scan_inputs(ScanCase(1, 30, 7, 16), seed=3)
    return {name: value.astype(np.float32) for name, value in inputs.items()}


def repeated(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """To two of 70 tokens."""
    long = {}
    for name, value in inputs.items():
        if name in tools.BY_TOKEN:
            value = np.concatenate([value] * 3, 1)[:, :70]
        long[name] = np.repeat(value, 2, 0) if value.ndim >= 3 else value
    return long


def test_tokens_are_repeated_to_the_sizes_and_copies_are_equal(emulated_gpu: Path) -> None:
    gpu = tools.Gpu()
    inputs = sequence()
    scan = tools.Scan(gpu, inputs, "float32", sizes=(2, 70))
    copy = scan.copy()
    del scan.tensors["u"]  # the copy needs nothing of it
    for tactic in range(1 + gpu.library.scan_tactics()):
        other = copy.by(tactic)
        other.launch()
        for found, truth in zip(other.results(), scan_truth(repeated(inputs)), strict=True):
            assert found.shape == truth.shape
            assert error(found, truth) <= 1e-5


@pytest.mark.slow
def test_mamba_gets_the_same_tokens_channel_major() -> None:
    torch = pytest.importorskip("torch")
    inputs, truth = sequence(), repeated(sequence())
    for name in inputs:
        found = scans.channel_major(torch.from_numpy(inputs[name]), name, SHAPE)
        wanted = inputs[name]
        if name in tools.BY_TOKEN:  # B and C are those of one group, (B, N, L)
            wanted = truth[name].reshape(*truth[name].shape[:2], -1).transpose(0, 2, 1)
        assert np.array_equal(found.numpy(), wanted)
        assert found.is_contiguous()


def test_without_mamba_it_does_not_take_part(
    emulated_gpu: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = types.ModuleType("mamba_ssm")
    monkeypatch.setitem(sys.modules, "mamba_ssm", broken)
    plan, found = scans.contestants(tools.Gpu(), None, [sequence()], SHAPE, copies=2)
    own, *others = found
    assert plan not in others
    assert own == "dvmsr"
    assert {name.split()[0] for name in others} == {"relay", "chunks"}
    assert all(seconds() > 0 for seconds in found.values())
    assert "mamba-ssm does not take part: " in capsys.readouterr().err


def test_sets_exceed_the_cache_and_fit_into_memory(emulated_gpu: Path) -> None:
    gpu = tools.Gpu()  # 1 MiB of cache, 1 GiB of memory
    layers = captured.load()["student"]
    for batch, length in ((1, 64), (1, 4096), (8, 4096), (8, 65_536)):
        shape = scans.Shape("student", batch, length, "float32")
        taken, copies = scans.sets(shape, layers, gpu)
        size = taken * copies * shape.bytes(layers[0])
        assert size <= max(gpu.info.free_bytes * scans.MEMORY, shape.bytes(layers[0]))
        assert size >= min(3 * gpu.info.l2_bytes, gpu.info.free_bytes * scans.MEMORY / 2)


def test_the_floor_is_of_exponentials_or_bytes() -> None:
    layer = captured.load()["official"][0]
    shape = scans.Shape("official", 1, 172_890, "float16")
    rates = {"ex2_per_second": 132 * 16 * 1.755e9, "bytes_read_and_written_per_second": 3.35e12}
    floor = scans.floor(shape, layer, rates)
    assert floor["exponentials_s"] == pytest.approx(90e-6, rel=0.01)
    assert floor["bytes_s"] == pytest.approx(53e-6, rel=0.01)


def test_what_matters_is_measured_first() -> None:
    given = types.SimpleNamespace(
        lengths=scans.LENGTHS,
        batches=scans.BATCHES,
        dtypes=scans.DTYPES,
        inputs="official,student",
    )
    found = scans.shapes(given)
    assert len(found) == 32
    assert [str(shape) for shape in found[:2]] == [
        "B1 L65536 float16 official",
        "B1 L65536 float16 student",
    ]
    assert all(shape.batch == 1 for shape in found[:16])
