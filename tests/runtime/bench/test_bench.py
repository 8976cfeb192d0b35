"""`dvmsr bench`: what is measured, printed, drawn and refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_model import Models

from dvmsr.config import DVMSRConfig
from dvmsr.errors import DvmsrError
from dvmsr.runtime import Upscaler
from dvmsr.runtime.backends.base import Network
from dvmsr.runtime.bench import bench
from dvmsr.runtime.bench.bench import measure
from dvmsr.runtime.bench.measurement import Measurement
from dvmsr.runtime.bench.plot import draw
from dvmsr.runtime.bench.probe import Probe, probe
from dvmsr.runtime.bench.timing import summarise
from dvmsr.utils.colormap import SERIES
from dvmsr.utils.memory import peak_resident

Command = Callable[..., tuple[int, str, str]]
QUICK = ("--rounds", "2", "--warmup", "0", "--threads", "1")


@pytest.fixture
def command(command: Command) -> Command:
    """Runs `dvmsr bench` in this process: arguments -> exit code, stdout, stderr."""
    return partial(command, "bench")


class Device(Network):
    """A backend with a clock and a memory of its own."""

    config = DVMSRConfig(scale=2)
    precision = "fp16"
    clock = "CUDA events"
    usual_shape = (2, 8, 12)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        raise AssertionError("timed by the wall clock")

    def seconds(self, image: np.ndarray) -> float:
        return 0.004 * len(image)

    def details(self) -> dict[str, Any]:
        return {"build_seconds": 60.0}


def measurement(name: str, milliseconds: list[float], base: list[float]) -> Measurement:
    seconds = [ms / 1e3 for ms in milliseconds]
    times = summarise(seconds, [ms / 1e3 for ms in base])
    found = Probe(1.0, 10, 30, None)
    arguments = (name, name, "native", "fp32", "wall clock")
    return Measurement(*arguments, tuple(seconds), times, found, {}, (2, 100, 50), 4)


def test_rates() -> None:
    found = measurement("a", [100.0, 200.0, 300.0], [100.0, 100.0, 100.0])
    assert found.images_per_second == pytest.approx(10)
    assert found.megapixels_per_second == pytest.approx(10 * 100 * 50 * 16 / 1e6)
    assert found.peak_bytes == 30
    assert found.to_dict()["times"]["ratio"] == pytest.approx(2)


def test_a_gpu_backend_brings_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time, memory and shape are used, and nothing of the backend's name is asked."""
    monkeypatch.setattr(bench, "probe", lambda *_: Probe(1.0, 10, 30, 7))
    upscaler = Upscaler(Device(), "native", "net.engine")
    assert bench._shapes([upscaler], [], []) == [(2, 8, 12)]
    assert bench._shapes([upscaler], [(3, 4)], [1, 5]) == [(1, 3, 4), (5, 3, 4)]
    found, again = measure(["x", "y"], [upscaler, upscaler], (2, 8, 12), 3, 1, None)
    assert found.seconds == (0.008,) * 3
    assert (found.clock, found.peak_bytes, found.details) == (
        *("CUDA events", 7),
        {"build_seconds": 60.0},
    )
    assert (found.name, again.times.ratio) == ("x", 1.0)
    assert found.model == "net.engine"


@pytest.mark.slow
def test_measures_models_sizes_and_batches(
    command: Command, models: Models, tmp_path: Path
) -> None:
    output, plot = tmp_path / "times.json", tmp_path / "times.png"
    pair = f"{models.onnx}:portable", f"{models.onnx_fp16}:portable"
    sizes = ("--size", "6x8", "--batch", "1", "--batch", "3")
    code, out, err = command(*pair, *sizes, *QUICK, "--json", "-o", output, "--plot", plot)
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert json.loads(output.read_text()) == report
    assert (report["rounds"], report["threads"], report["base"]) == (2, 1, pair[0])
    assert {"processor", "processors_usable", "isa", "onnxruntime"} <= set(report["machine"])
    cases = [(r["precision"], r["shape"]) for r in report["results"]]
    assert cases == [(p, [batch, 6, 8]) for batch in (1, 3) for p in ("fp32", "fp16")]
    for result in report["results"]:
        times, found = result["times"], result["probe"]
        assert len(result["seconds"]) == 2
        assert 0 < times["min_ms"] <= times["p50_ms"] <= times["p95_ms"] <= times["max_ms"]
        assert result["images_per_second"] == pytest.approx(
            result["shape"][0] / times["p50_ms"] * 1e3
        )
        assert found["load_seconds"] > 0
        if sys.platform == "linux":
            assert 2**24 < found["loaded_bytes"] <= found["peak_bytes"] < 2**33
    assert report["results"][0]["times"]["ratio"] == 1
    with Image.open(plot) as image:
        assert image.format == "PNG"


def test_table(command: Command, models: Models) -> None:
    code, out, err = command(f"{models.onnx_5x7}:portable", *QUICK)
    assert (code, err) == (0, "")
    assert "5x7 pixels, batch 1" in out  # the only size that this file takes
    assert all(part in out for part in ("small_5x7.onnx", "portable", "p99 ms", "out MP/s", "1.00"))


@pytest.mark.slow
def test_a_checkpoint_runs_in_pytorch(command: Command, models: Models) -> None:
    code, out, _ = command(models.pth, *QUICK, "--size", "5x7")
    assert code == 0
    assert "small.pth" in out and "torch" in out


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(models: Models) -> None:
    if peak_resident() is None:
        pytest.skip("no such figure on this system")
    ballast = np.ones(2**25)  # a quarter of a GB here does not count there
    small, large = (
        probe(f"{models.onnx}:portable", 1, shape) for shape in ((1, 8, 8), (1, 300, 300))
    )
    assert small.peak_bytes is not None and large.peak_bytes is not None
    assert small.peak_bytes < ballast.nbytes
    assert large.peak_bytes > small.peak_bytes + 300 * 300 * 12 * 4
    assert small.device_bytes is None


def test_a_probe_that_fails_says_why(models: Models) -> None:
    with pytest.raises(DvmsrError, match=r"small_5x7\.onnx:portable failed .*7x5 pixels only"):
        probe(f"{models.onnx_5x7}:portable", 1, (1, 7, 5))


def test_works_without_torch(models: Models) -> None:
    code = "import sys; sys.modules['torch'] = None; from dvmsr.cli import main; main()"
    command = [sys.executable, "-c", code, "bench", f"{models.onnx}:portable", *QUICK]
    result = subprocess.run([*command, "--size", "5x5"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "5x5 pixels, batch 1" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["m.onnx:portable", "--size", "8"], 2, "HEIGHTxWIDTH"),
        (["m.onnx:portable", "--batch", "0"], 2, "--batch"),
        (["m.onnx:portable", "--rounds", "0"], 2, "--rounds"),
        (["m.onnx:portable", "-o", "m.onnx"], 2, "must end in .json"),
        (["m.onnx:portable", "-o", "old.json"], 2, "old.json exists"),
        (["m.onnx:portable", "--plot", "plot.jpg"], 2, "must end in .png"),
        (["m.onnx:portable", "--plot", "nowhere/plot.png"], 2, "nowhere is not a folder"),
        (["m.onnx:gpu"], 2, "no backend gpu"),
        (["missing.onnx"], 2, "does not exist"),
        (["m.onnx:portable", "--size", "90000x90000"], 1, "TiB of memory"),
        ([], 2, "MODEL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments(
    folder: Path, command: Command, arguments: list[str], code: int, complaint: str
) -> None:
    (folder / "old.json").write_text("{}")
    found, out, err = command(*arguments)
    assert (found, out) == (code, "")
    assert complaint in err and "Traceback" not in err
    assert {path.name for path in folder.iterdir()} == {"m.onnx", "old.json"}


def bar_lengths(picture: Image.Image) -> list[int]:
    """Pixels of the longest row of each colour of the first bars."""
    pixels = np.asarray(picture)
    lengths = []
    for colour in SERIES[:2]:
        rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        lengths.append(int((pixels == rgb).all(-1).sum(1).max()))
    return lengths


def test_bars_are_as_long_as_the_medians() -> None:
    base = [100.0, 100.0, 100.0]
    results = [measurement("a.onnx", base, base), measurement("b.onnx", [300.0] * 3, base)]
    first, second = bar_lengths(draw(results, "a machine"))
    assert first > 50
    assert second / first == pytest.approx(3, rel=0.05)


def test_an_outlier_does_not_flatten_the_bars() -> None:
    base = [100.0] * 9
    slow = [*base[1:], 60_000.0]
    first, second = bar_lengths(
        draw([measurement("a", base, base), measurement("b", slow, base)], "a machine")
    )
    assert min(first, second) > 200
