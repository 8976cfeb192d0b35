"""`dvmsr bench` with networks other than DVMSR."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_model import save_foreign
from PIL import Image

from dvmsr.errors import DvmsrError
from dvmsr.runtime.backends.tensors import Arrays, TensorNetwork
from dvmsr.runtime.bench import tensors
from dvmsr.runtime.bench.probe import Probe, probe

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(command: Command) -> Command:
    """Runs `dvmsr bench` in this process: arguments -> exit code, stdout, stderr."""
    return partial(command, "bench")


class Device(TensorNetwork):
    """A backend with a clock of its own."""

    model, backend, precision, clock = "net.engine", "tensorrt", "fp16", "CUDA events"

    def _run(self, feeds: Arrays) -> Arrays:
        raise AssertionError("timed by the wall clock")

    def seconds(self, arrays: Any) -> float:
        return 0.004 * len(arrays["x"])

    def details(self) -> dict[str, Any]:
        return {"build_seconds": 60.0}


def test_a_gpu_backend_brings_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is run on its own arrays, here and where its memory is measured."""
    seen = []

    def fake(spec: str, threads: int | None, file: Path, *_: object) -> Probe:
        with np.load(file) as arrays:
            seen.append((spec, arrays["x"].shape))
        return Probe(1.0, 10, 30, 7)

    monkeypatch.setattr(tensors, "probe", fake)
    inputs = [{"x": np.ones((2, 3), np.float32)}, {"x": np.ones((4, 3), np.float32)}]
    slow, slower = tensors.measure(["a", "b"], [Device(), Device()], inputs, 3, 1, None)
    assert seen == [("a", (2, 3)), ("b", (4, 3))]
    assert (slow.seconds, slower.seconds) == ((0.008,) * 3, (0.016,) * 3)
    assert (slow.clock, slow.peak_bytes, slow.details) == ("CUDA events", 7, {"build_seconds": 60})
    assert (slower.name, slower.times.ratio) == ("b", pytest.approx(2))
    assert slow.rates == {"calls/s": pytest.approx(125)}
    assert slow.to_dict()["calls_per_second"] == pytest.approx(125)
    assert slow.title == slower.title == "x float32 2x3"


def test_files_of_other_programs(command: Command, tmp_path: Path) -> None:
    file, plot = save_foreign(tmp_path / "clip.onnx", "Clip"), tmp_path / "times.png"
    pair = f"{file}:portable", f"{save_foreign(tmp_path / 'log.onnx', 'Log')}:portable"
    quick = ("--input", "1x3x5x4", "--rounds", "2", "--warmup", "0", "--threads", "1")
    code, out, err = command(*pair, *quick, "--json", "--plot", plot)
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["base"], report["threads"]) == (pair[0], 1)
    for name, result in zip(pair, report["results"], strict=True):
        assert (result["name"], result["backend"]) == (name, "portable")
        assert result["inputs"] == {"picture": "float32 1x3x5x4"}
        assert len(result["seconds"]) == 2
        assert result["calls_per_second"] == pytest.approx(1e3 / result["times"]["p50_ms"])
        assert result["probe"]["load_seconds"] > 0
    with Image.open(plot) as image:
        assert image.format == "PNG"


def test_table(
    command: Command, exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factory beside a file that tells its sizes."""
    monkeypatch.setattr(tensors, "probe", lambda *_: Probe(1.0, 10, 30, None))
    models = ("mamba_patterns:gated", f"{exported('gated')}:portable")
    code, out, err = command(*models, "--rounds", "2", "--warmup", "0")
    assert (code, err) == (0, "")
    assert "tokens float32 2x5x8\n" in out
    assert all(part in out for part in ("mamba_patterns:gated", "torch", "portable", "calls/s"))
    assert "MP/s" not in out


def test_a_probe_takes_arrays(tmp_path: Path) -> None:
    file = save_foreign(tmp_path / "m.onnx", "Identity", shape=(1, 3, 8, 8))
    np.savez(tmp_path / "in.npz", picture=np.ones((1, 3, 5, 4), np.float32))
    with pytest.raises(DvmsrError, match=r"failed \(picture has shape \(1, 3, 5, 4\), but"):
        probe(f"{file}:portable", 1, tmp_path / "in.npz")


@pytest.mark.slow
def test_a_factory_that_prints(command: Command) -> None:
    """Here, and in the process that is measured."""
    quick = ("--rounds", "1", "--warmup", "0", "--json")
    code, out, err = command("own_network:talkative", "--input", "3", *quick)
    assert code == 0, err
    (result,) = json.loads(out)["results"]
    assert (result["backend"], result["probe"]["device_bytes"]) == ("torch", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["own_network:enlarge", "--size", "8x8"], "leave out --size, and give --input"),
        (["student", "own_network:enlarge", "--batch", "8"], "leave out --batch, and give"),
        (["student", "--input", "1x3x8x8"], "give --size and --batch in place of --input"),
        (["student", "--inputs", "x.npz"], "in place of --inputs"),
        (["own_network:enlarge", "-o", "times.txt"], "must end in .json"),
        (["own_network:enlarge"], "does not tell the sizes of its inputs"),
    ],
)
def test_what_makes_no_sense(command: Command, arguments: list[str], message: str) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
