"""`dvmsr-infer` on pictures that go from file to file by rows."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from small_model import random_pixels

from dvmsr.errors import UsageError
from dvmsr.runtime import Upscaler, by_rows, vips
from dvmsr.runtime.image_io import read_image

requires_vips = pytest.mark.skipif(not vips.installed(), reason="needs the extra large")
Infer = Callable[..., int]
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def model(folder: Path, streaming_file: Path) -> tuple[str, ...]:
    """Options for the streaming model; the current folder is empty but for another one."""
    (folder / "m.onnx").unlink()
    return "--model", str(streaming_file), "--backend", "portable", "--threads", "1"


def noise(path: str, height: int, width: int, channels: int = 3, **options: Any) -> str:
    pixels = random_pixels(height, width, channels)
    if channels in (2, 4):
        pixels[: height // 2, : width // 2, -1] = 0
    Image.fromarray(pixels).save(path, **options)
    return path


def in_memory(model: tuple[str, ...], path: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Upscaler.from_file(model[1], "portable", threads=1)(read_image(Path(path)))


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@requires_vips
@pytest.mark.parametrize(
    ("source", "target", "channels", "options"),
    [
        ("p.png", "o.png", 3, {"icc_profile": PROFILE}),
        ("p.tif", "o.tif", 4, {"compression": "tiff_lzw"}),
        ("p.png", "o.tif", 2, {}),
        ("p.tif", "o.png", 1, {}),
        ("p.png", "o.tif", 3, {"exif": turned(6)}),
    ],
    ids=["profile", "cut-out", "gray-cut-out", "gray", "turned"],
)
def test_equals_the_picture_in_memory(
    model: tuple[str, ...],
    infer: Infer,
    source: str,
    target: str,
    channels: int,
    options: dict[str, Any],
) -> None:
    """To one level, which rounding may cost."""
    noise(source, 70, 31, channels, **options)
    assert infer(source, "-o", target, "--strip", "9", *model) == 0
    expected = in_memory(model, source)
    with Image.open(target) as image:
        assert image.mode == expected.mode
        assert image.info.get("icc_profile") == options.get("icc_profile")
        difference = np.asarray(image, int) - np.asarray(expected, int)
    assert np.abs(difference).max() <= 1
    assert names() == sorted([source, target])


@requires_vips
def test_a_format_without_transparency_becomes_white(
    model: tuple[str, ...], infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    noise("p.png", 40, 40, 4)
    assert infer("p.png", "-o", "o.jpg", "--strip", "8", *model) == 0
    assert capsys.readouterr().err.count("JPEG holds no transparency, which becomes white") == 1
    with Image.open("o.jpg") as image:
        assert image.size == (80, 80)
        assert np.asarray(image)[:32, :32].min() > 240


@requires_vips
def test_goes_by_rows_where_the_whole_does_not_fit(
    model: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise("p.png", 2000, 100)
    noise("p.bmp", 2000, 100)
    small = Upscaler.from_file(model[1], "portable", memory_limit=30 << 20)
    large = Upscaler.from_file(model[1], "portable", memory_limit=1 << 32)
    source, target = Path("p.png"), Path("o.tif")
    assert by_rows.wanted(small, source, target)
    assert not by_rows.wanted(large, source, target)
    for bad, complaint in [
        ((source, Path("o.webp")), "nor is WEBP written by rows; choose .tif or .png with -o"),
        ((Path("p.bmp"), target), "nor is it read by rows; convert it to PNG, JPEG, WebP or TIFF"),
    ]:
        assert not by_rows.wanted(large, *bad)
        with pytest.raises(Exception, match=complaint):
            by_rows.wanted(small, *bad)
    monkeypatch.setattr("dvmsr.runtime.image_io.MAX_PIXELS", 1000)
    assert by_rows.wanted(large, source, target)
    with pytest.raises(UsageError, match=r"missing\.png does not exist"):
        by_rows.wanted(large, Path("missing.png"), target)


@requires_vips
def test_too_much_even_by_rows(
    model: tuple[str, ...], infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    noise("p.png", 300, 300)
    assert infer("p.png", "--memory", "2M", *model) == 1
    assert "which need about" in capsys.readouterr().err
    assert names() == ["p.png"]


def test_without_the_extra(
    model: tuple[str, ...],
    infer: Infer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What fits is enlarged; what does not names what is missing."""
    vips.import_vips.cache_clear()
    monkeypatch.setitem(sys.modules, "pyvips", None)
    noise("p.png", 50, 30)
    assert infer("p.png", "--strip", "9", "-o", "o.png", *model) == 0
    capsys.readouterr()
    assert infer("p.png", "--memory", "2M", *model) == 4
    error = capsys.readouterr().err
    assert error == (
        "error: p.png does not fit into memory as a whole, and reading it by rows needs pyvips: "
        "pip install 'dvmsr[large]'\n"
    )
    assert names() == ["o.png", "p.png"]


@requires_vips
@pytest.mark.parametrize("source", ["p.png", "p.tif"])
def test_a_cut_off_file_leaves_nothing(
    model: tuple[str, ...], infer: Infer, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(noise(source, 200, 30)).read_bytes()
    Path(source).write_bytes(data[: len(data) // 2])
    assert infer(source, "--strip", "8", "-o", "o.tif", *model) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"error: {source} is damaged or truncated; get a complete copy of it"]
    assert names() == [source]


@requires_vips
def test_warns_of_little_space(
    model: tuple[str, ...],
    infer: Infer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 100}))
    noise("p.png", 20, 20)
    assert infer("p.png", "--strip", "8", *model) == 0
    assert "p_x2.png may need up to 0.0 GB where 0.0 GB are free" in capsys.readouterr().err


ANNOUNCED = """
import onnxruntime, time
run = onnxruntime.InferenceSession.run
def announced(*arguments):
    print('running', flush=True)
    time.sleep(0.2)
    return run(*arguments)
onnxruntime.InferenceSession.run = announced
"""
MAIN = "\nfrom dvmsr.runtime.cli import main; main()"
PEAK = """
import atexit, re
def tell():
    print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1))
atexit.register(tell)
"""


@requires_vips
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_half_result(model: tuple[str, ...], number: int) -> None:
    """After some strips of many; a kill can leave the temporary file."""
    noise("p.png", 2000, 20)
    command = [sys.executable, "-c", ANNOUNCED + MAIN, "p.png", "--strip", "8", *model]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while len(names()) < 2:  # until the temporary file is there
        assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    process.communicate(timeout=60)
    left = [name for name in names() if name != "p.png"]
    if number == signal.SIGKILL:
        assert [name for name in left if not name.startswith(".dvmsr-")] == []
    else:
        assert left == []
        assert process.returncode == 128 + number


@requires_vips
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow_with_the_height(model: tuple[str, ...]) -> None:
    """Ten times the rows: the result alone would be 17 MB more."""
    peaks = []
    for height in (600, 6000):
        noise("p.tif", height, 256)
        arguments = ["p.tif", "-o", "o.tif", "--strip", "32", "--overwrite", *model]
        command = [sys.executable, "-c", PEAK + MAIN, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(1024 * int(result.stdout))
    assert peaks[1] - peaks[0] < 8 << 20
