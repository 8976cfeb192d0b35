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
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from processes import LIMIT, next_line
from profiles import WIDE
from small_model import Models, random_pixels

from dvmsr import checkpoint
from dvmsr.errors import UsageError
from dvmsr.runtime import Upscaler
from dvmsr.runtime.images.codec import read_image
from dvmsr.runtime.images.rows import vips
from dvmsr.runtime.infer import by_rows

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


def deep(path: str, height: int, width: int, channels: int) -> NDArray[np.uint16]:
    """A picture file with 16 bits per channel, without holes."""
    pyvips = vips.import_vips()
    rng = np.random.default_rng(3)
    pixels = rng.integers(1, 1 << 16, (height, width, channels), np.uint16)
    kind = "rgb16" if channels > 2 else "grey16"
    pyvips.Image.new_from_array(pixels).copy(interpretation=kind).write_to_file(path)
    return pixels


def read_deep(path: str) -> NDArray[Any]:
    pixels: NDArray[Any] = vips.import_vips().Image.new_from_file(path).numpy()
    return pixels.reshape(*pixels.shape[:2], -1)


@requires_vips
@pytest.mark.parametrize("target", ["o.png", "o.tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_stay(
    model: tuple[str, ...],
    models: Models,
    infer: Infer,
    capsys: pytest.CaptureFixture[str],
    channels: int,
    target: str,
) -> None:
    """Against the network in FP64, to one of 65,535 levels, and alpha in FP32."""
    pixels = deep("p.png", 20, 31, channels)
    assert infer("p.png", "-o", target, *model) == 0
    assert "reduced" not in capsys.readouterr().err
    result = read_deep(target).astype(float)
    assert result.shape == (40, 62, channels)
    network = checkpoint.load(models.safetensors).double().eval()
    colours = pixels[..., :-1] if channels in (2, 4) else pixels
    unit = torch.from_numpy(np.broadcast_to(colours, (20, 31, 3)) / 65535)
    with torch.no_grad():
        sr = network(unit.permute(2, 0, 1)[None])[0].permute(1, 2, 0).clamp(0, 1).numpy() * 65535
    if channels < 3:
        sr = sr @ [[0.299], [0.587], [0.114]]
    assert np.abs(result[..., : sr.shape[2]] - sr).max() <= 1
    if channels in (2, 4):
        alpha = Image.fromarray(pixels[..., -1].astype(np.float32))
        larger = alpha.resize((62, 40), Image.Resampling.BICUBIC)
        assert np.abs(result[..., -1] - np.asarray(larger).clip(0, 65535)).max() <= 1


@requires_vips
@pytest.mark.parametrize("channels", [2, 4])
def test_holes_with_sixteen_bits(model: tuple[str, ...], infer: Infer, channels: int) -> None:
    """Colours as with 8, to two of 255 levels; alpha but for what 8 bits clip in between."""
    noise("p.png", 20, 31, channels)
    shallow = np.asarray(Image.open("p.png")).astype(np.uint16) * 257
    kind = "rgb16" if channels > 2 else "grey16"
    pyvips = vips.import_vips()
    pyvips.Image.new_from_array(shallow).copy(interpretation=kind).write_to_file("q.png")
    for name in "pq":
        assert infer(f"{name}.png", "-o", f"{name}x.png", "--strip", "9", *model) == 0
    difference = read_deep("qx.png") / 257 - read_deep("px.png")
    assert np.abs(difference[..., :-1]).max() <= 2
    assert np.abs(difference[..., -1]).max() <= 20


@pytest.mark.slow
@requires_vips
def test_any_size_mode_and_height_of_strips(streaming_file: Path, tmp_path: Path) -> None:
    """The picture in memory to one level, and 16 bits to as much as 8 where these say the same."""
    whole = Upscaler.from_file(streaming_file, "portable", threads=1)
    source, target = tmp_path / "p.png", tmp_path / "o.png"

    @settings(max_examples=25, deadline=None)
    @given(
        st.integers(1, 40),
        st.integers(1, 40),
        st.sampled_from(["L", "LA", "RGB", "RGBA"]),
        st.integers(1, 50),
        st.booleans(),
    )
    def check(height: int, width: int, mode: str, strip: int, is_deep: bool) -> None:
        pixels = random_pixels(height, width, len(mode))
        image = Image.frombytes(mode, (width, height), pixels.tobytes())
        image.save(source)
        if is_deep:
            vips.import_vips().Image.new_from_array(pixels.astype(np.uint16) * 257).copy(
                interpretation="rgb16" if mode.startswith("RGB") else "grey16"
            ).write_to_file(str(source))
        by_strips = Upscaler.from_file(streaming_file, "portable", threads=1, strip=strip)
        prepared = by_rows.prepare(by_strips, source, target)
        by_rows.enlarge(by_strips, prepared, True, lambda done, rows: None)
        expected = np.asarray(whole(image), float).reshape(2 * height, 2 * width, -1)
        result = read_deep(str(target)) / (257 if is_deep else 1)
        colours = len(mode.removesuffix("A"))
        assert result.shape == expected.shape
        assert np.abs(result - expected)[..., :colours].max() <= 1
        if not is_deep:  # alpha is clipped between rows and columns
            assert np.abs(result - expected).max() <= 1

    check()


@requires_vips
def test_sixteen_bits_in_eight(
    model: tuple[str, ...], infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    deep("p.png", 20, 31, 3)
    assert infer("p.png", "-o", "o.jpg", *model) == 0
    assert "o.jpg: 16 bits per channel are reduced to 8 after enlarging" in capsys.readouterr().err
    assert infer("p.png", "-o", "o.webp", *model) == 0
    assert "p.png: 16 bits per channel are reduced to 8" in capsys.readouterr().err


@requires_vips
def test_metadata_goes_by_rows(
    model: tuple[str, ...], infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Image.Exif()
    data[271], data[0x0112], data[282], data[283], data[296] = "Leica", 6, 100.0, 100.0, 2
    data[0x8769] = {0xA002: 31, 0xA003: 20}
    xmp = b'<x:xmpmeta tiff:ImageWidth="31"></x:xmpmeta>'
    options = {"exif": data.tobytes(), "dpi": (100, 100), "xmp": xmp, "quality": 60}
    noise("p.jpg", 20, 31, subsampling=2, **options)
    for target in ("o.jpg", "o.png", "o.tif"):
        assert infer("p.jpg", "-o", target, "--strip", "9", *model) == 0
        with Image.open(target) as image:
            assert image.size == (40, 62)
            assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
            written = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
            assert b'tiff:ImageWidth="40"' in written
            exif = image.getexif()
            assert exif.get(0x0112, 1) == 1
            if target != "o.tif":
                assert (exif[271], exif[282]) == ("Leica", 200)
                assert exif.get_ifd(0x8769)[0xA002] == 40
    told = "o.tif: TIFF that is written by rows cannot hold EXIF data, left out"
    assert told in capsys.readouterr().err
    with Image.open("p.jpg") as before, Image.open("o.jpg") as after:
        assert after.quantization == before.quantization
        assert after.layer == before.layer


@requires_vips
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_converts_to_srgb_by_rows(model: tuple[str, ...], infer: Infer, channels: int) -> None:
    """As in memory, to two levels of rounding."""
    gray = WIDE[:16] + b"GRAY" + WIDE[20:]
    noise("p.png", 20, 31, channels, icc_profile=WIDE if channels > 2 else gray)
    assert infer("p.png", "-o", "a.png", "--to-srgb", *model) == 0
    assert infer("p.png", "-o", "b.png", "--to-srgb", "--strip", "9", *model) == 0
    with Image.open("a.png") as whole, Image.open("b.png") as rows:
        assert whole.mode == rows.mode
        assert whole.info.get("icc_profile") == rows.info.get("icc_profile")
        difference = np.asarray(whole, int) - np.asarray(rows, int)
    assert np.abs(difference).max() <= 3


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
    monkeypatch.setattr("dvmsr.runtime.images.codec.MAX_PIXELS", 1000)
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
    assert "p_x2.png may need up to 4.7 KiB where 0.1 KiB are free" in capsys.readouterr().err


STEP_BY_STEP = """
import sys
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
run = onnxruntime.InferenceSession.run
def announced(*arguments):
    print('running', flush=True)
    sys.stdin.readline()
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
    command = [sys.executable, "-c", STEP_BY_STEP + MAIN, "p.png", "--strip", "8", *model]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdin is not None
    while len(names()) < 2:  # until the temporary file is there
        assert next_line(process, process.stdout) == "running\n"
        print(file=process.stdin, flush=True)
    process.send_signal(number)
    process.communicate(timeout=LIMIT)
    left = [name for name in names() if name != "p.png"]
    if number == signal.SIGKILL:
        assert [name for name in left if not name.startswith(".dvmsr-")] == []
    else:
        assert left == []
        assert process.returncode == 128 + number


@pytest.mark.slow
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


def test_frames_that_cannot_be_counted_are_a_sentence(
    infer: Callable[..., int], model: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.fromarray(random_pixels(12, width)).resize((16, 12)) for width in (8, 9)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    whole = Path("a.gif").read_bytes()
    second = whole.rindex(b"!\xf9\x04")
    Path("a.gif").write_bytes(whole[: second + 30])
    assert infer("a.gif", *model) == 1
    assert "a.gif is damaged or truncated" in capsys.readouterr().err
