"""`dvmsr-infer` on pictures that go from file to file by rows."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from no_threads import refuse_threads
from numpy.typing import NDArray
from PIL import Image, ImageCms
from processes import LIMIT, next_line
from profiles import WIDE
from small_model import Models, random_pixels
from tiffs import ASCII, DOUBLE, FLOAT, SHORT, write_tiff

from dvmsr import checkpoint
from dvmsr.errors import UsageError
from dvmsr.runtime import Upscaler
from dvmsr.runtime.images import annotations
from dvmsr.runtime.images.decode import read_image
from dvmsr.runtime.images.jpeg import iptc_marker
from dvmsr.runtime.images.rows import vips
from dvmsr.runtime.images.tiff import Tiff
from dvmsr.runtime.infer import by_rows
from dvmsr.utils.threads import NO_MORE

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
            assert (exif[271], exif[282]) == ("Leica", 200)
            assert exif.get_ifd(0x8769)[0xA002] == 40
    assert "left out" not in capsys.readouterr().err
    with Image.open("p.jpg") as before, Image.open("o.jpg") as after:
        assert after.quantization == before.quantization
        assert after.layer == before.layer


def chunks_of(path: str) -> list[tuple[bytes, bytes]]:
    """Of a PNG: kinds and contents before and behind the pixels, in the order of the alphabet."""
    data, found, place = Path(path).read_bytes(), [], 8
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind != b"IDAT":
            found.append((kind, data[place + 8 : place + 8 + length]))
        place += 12 + length
    return sorted(found)


PNG_CHUNKS: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    "nothing": (),
    "linear": ((b"gAMA", (100_000).to_bytes(4, "big")),),
    "chromaticities": ((b"cHRM", bytes(range(32))), (b"gAMA", (45_455).to_bytes(4, "big"))),
    "srgb": ((b"sRGB", b"\0"),),
    "hdr": ((b"cICP", bytes([9, 16, 0, 1])), (b"mDCV", bytes(24)), (b"cLLI", bytes(8))),
    "resolution": ((b"pHYs", struct.pack(">IIB", 3937, 3937, 1)),),
    "narrow-pixels": ((b"pHYs", struct.pack(">IIB", 1, 2, 0)),),
    "text": (
        (b"tEXt", b"Title\0Sea"),
        (b"zTXt", b"prompt\0\0" + zlib.compress(b"a cat " * 300_000)),
        (b"iTXt", "Titre\0\0\0fr\0Titre\0Été".encode()),
    ),
    "xmp": ((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta/>"),),
}


@requires_vips
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("name", "behind"),
    [(name, False) for name in PNG_CHUNKS] + [("text", True), ("xmp", True)],
    ids=[*PNG_CHUNKS, "text-behind", "xmp-behind"],
)
def test_a_png_says_by_rows_what_it_says_in_memory(
    model: tuple[str, ...], infer: Infer, name: str, bits: int, behind: bool
) -> None:
    """Nothing is lost, and nothing is made up."""
    ours = b"".join(annotations.chunk(*one) for one in PNG_CHUNKS[name])
    size = struct.pack(">IIBBBBB", 9, 7, bits, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(range(27)) * (bits // 8) for _ in range(7)))
    parts = [ours, annotations.chunk(b"IDAT", pixels)]
    body = b"".join(reversed(parts) if behind else parts)
    head = b"\x89PNG\r\n\x1a\n" + annotations.chunk(b"IHDR", size)
    Path("p.png").write_bytes(head + body + annotations.chunk(b"IEND", b""))
    assert infer("p.png", "-o", "rows.png", "--strip", "4", *model) == 0
    expected = [(b"IEND", b""), (b"IHDR", struct.pack(">IIBBBBB", 18, 14, bits, 2, 0, 0, 0))]
    expected += PNG_CHUNKS[name]
    if name == "resolution":
        expected[-1] = (b"pHYs", struct.pack(">IIB", 7874, 7874, 1))
    assert chunks_of("rows.png") == sorted(expected)
    if bits == 8:
        assert infer("p.png", "-o", "whole.png", *model) == 0
        assert chunks_of("whole.png") == sorted(expected)


def segments_of(path: str) -> list[bytes]:
    """Of a JPEG: markers and contents that are not about its compression."""
    data, found, place = Path(path).read_bytes(), [], 2
    while data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] >= 0xE0:
            found.append(data[place : place + 2 + length])
        place += 2 + length
    return sorted(found)


@requires_vips
@pytest.mark.parametrize("resolution", [None, (100, 100)], ids=["no-dpi", "dpi"])
def test_a_jpeg_says_by_rows_what_it_says_in_memory(
    model: tuple[str, ...], infer: Infer, resolution: tuple[int, int] | None
) -> None:
    guid = b"0" * 32
    xmp = b"<x:xmpmeta><a xmpNote:HasExtendedXMP='" + guid + b"'/></x:xmpmeta>"
    more = b"http://ns.adobe.com/xmp/extension/\0" + guid + bytes([0, 0, 156, 64, 0, 0, 0, 0])
    more += b"<x:xmpmeta/>".ljust(40_000)
    extra = b"\xff\xe1" + (len(more) + 2).to_bytes(2, "big") + more + iptc_marker(b"\x1c\x02\x05")
    options = {} if resolution is None else {"dpi": resolution}
    noise("p.jpg", 9, 7, xmp=xmp, extra=extra, comment=b"by hand", **options)
    assert infer("p.jpg", "-o", "rows.jpg", "--strip", "4", *model) == 0
    assert infer("p.jpg", "-o", "whole.jpg", *model) == 0
    rows, whole = segments_of("rows.jpg"), segments_of("whole.jpg")
    resolutions = (b"JFIF\0", b"Exif\0")  # libvips says it there, Pillow here
    said = [{s[4:30] for s in told if s[4:9] not in resolutions} for told in (rows, whole)]
    assert said[0] == said[1]
    for part in (xmp, more, b"by hand", b"\x1c\x02\x05"):
        assert sum(part in segment for segment in rows) == 1
        assert sum(part in segment for segment in whole) == 1
    with Image.open("rows.jpg") as one, Image.open("whole.jpg") as other:
        assert one.info.get("dpi") == other.info.get("dpi")
        assert one.info.get("dpi") == (resolution and (200, 200))


@requires_vips
@pytest.mark.parametrize("target", ["o.png", "o.tif", "o.webp"])
def test_extended_xmp_is_left_out_with_a_warning(
    model: tuple[str, ...], infer: Infer, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    more = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40 + b"<x/>"
    xmp = b"<x:xmpmeta><a xmpNote:HasExtendedXMP='" + b"0" * 32 + b"'/></x:xmpmeta>"
    noise("p.jpg", 9, 7, xmp=xmp, extra=b"\xff\xe1" + (len(more) + 2).to_bytes(2, "big") + more)
    assert infer("p.jpg", "-o", target, *model) == 0
    assert f"{target}: {target[2:].upper().replace('TIF', 'TIFF')} cannot hold extended XMP" in (
        capsys.readouterr().err
    )
    assert b"<x:xmpmeta><a/></x:xmpmeta>" in Path(target).read_bytes()


@requires_vips
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("point", [1, 2], ids=["area", "point"])
def test_a_map_stays_as_large_as_it_was(
    model: tuple[str, ...], infer: Infer, bits: int, order: str, point: int
) -> None:
    """Scale 2, in memory and by rows; tie points lie at (10, 20)."""
    tags = {
        33550: (DOUBLE, [10.0, 12.0, 3.0]),
        33922: (DOUBLE, [10.0, 20.0, 0.0, 5e5, 5.4e6, 0.0]),
        34735: (SHORT, [1, 1, 0, 2, 1025, 0, 1, point, 3072, 0, 1, 32632]),
        42113: (ASCII, list(b"-9999\0")),
    }
    pixels = np.arange(7 * 9 * 3).reshape(7, 9, 3)
    write_tiff(Path("p.tif"), pixels, bits, 2, order=order, more=tags)
    ways = [("rows.tif", "--strip", "4")] + [("whole.tif",)] * (bits == 8)
    for target, *options in ways:
        assert infer("p.tif", "-o", target, *options, *model) == 0
        with Path(target).open("rb") as file:
            found = Tiff(file).directory()
        shift = 0.5 * (point == 2)
        assert found[33550].numbers == (5, 6, 3)
        assert found[33922].numbers == (20 + shift, 40 + shift, 0, 5e5, 5.4e6, 0)
        assert found[34735].numbers == tuple(tags[34735][1])
        assert found[42113].data == b"-9999\0"
        assert not {282, 283, 296} & set(found)
        with Image.open(target) as image:
            assert image.info["compression"] == "tiff_lzw"


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
    monkeypatch.setattr("dvmsr.runtime.images.decode.MAX_PIXELS", 1000)
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


@requires_vips
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts what is open as Linux tells it")
@pytest.mark.parametrize("options", [("--strip", "8"), ()], ids=["rows", "memory"])
def test_two_thousand_damaged_pictures_leave_neither_files_open_nor_pixels(
    model: tuple[str, ...], infer: Infer, options: tuple[str, ...]
) -> None:
    noise("large.png", 900, 600)
    noise("whole.png", 30, 20)
    Path("in").mkdir()
    Path("in/0.png").write_bytes(Path("large.png").read_bytes()[:10_000])
    for number in range(1, 2000):
        os.link("in/0.png", f"in/{number}.png")
    code = (
        "import gc, os, resource, sys\n"
        "from dvmsr.runtime.cli import main\n"
        "from dvmsr.utils.memory import peak_resident\n"
        "gc.disable()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "peak = peak_resident() // 1024\n"
        "print(len(os.listdir('/proc/self/fd')), peak)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "in", "whole.png", "-o", "out", *options, *model],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    lines = ran.stderr.splitlines()
    failed = [line for line in lines if line.startswith("error: ")]
    assert len(failed) == 2000
    assert {line.split(" ", 2)[2] for line in failed} == {
        "is damaged or truncated; get a complete copy of it"
    }
    assert Path("out/whole_x2.png").exists()
    files, kilobytes = map(int, ran.stdout.split())
    assert files < 20
    assert kilobytes < 500_000  # of pixels alone there were 3.2 GB


@requires_vips
@pytest.mark.parametrize("left", [2, 5])
def test_libvips_is_not_asked_for_threads_that_there_are_not(
    model: tuple[str, ...],
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    left: int,
) -> None:
    """Which would end the process without a word."""
    noise("p.png", 30, 20)
    refuse_threads(monkeypatch, after=left)
    assert infer("p.png", "-o", "o.png", "--strip", "8", *model) == 1
    assert NO_MORE in capsys.readouterr().err
    assert {path.name for path in Path().iterdir()} == {"p.png"}


def exif_in(path: str) -> bytes:
    """As it is stored in a PNG or a JPEG."""
    data = Path(path).read_bytes()
    if path.endswith("png"):
        return dict(chunks_of(path)).get(b"eXIf", b"")
    place = data.find(b"Exif\0\0")
    length = int.from_bytes(data[place - 2 : place], "big")
    return data[place + 6 : place - 2 + length]


@requires_vips
@pytest.mark.parametrize("target", ["o.png", "o.jpg"])
def test_exif_data_by_rows_is_the_same_byte_for_byte(
    model: tuple[str, ...], infer: Infer, target: str
) -> None:
    """With a maker's notes, in its order of bytes, and nothing made up."""
    data = Image.Exif()
    data.endian = ">"
    data[271], data[270] = "Leica", "x" * 30_000
    data[0x8769] = {0x927C: b"LEICA\0\1\2\3", 0x9003: "2026:01:01 00:00:00"}
    noise("p.jpg", 9, 7, exif=data.tobytes())
    assert infer("p.jpg", "-o", f"rows-{target}", "--strip", "4", *model) == 0
    assert infer("p.jpg", "-o", f"whole-{target}", *model) == 0
    assert exif_in(f"rows-{target}") == exif_in(f"whole-{target}") != b""
    assert b"LEICA\0\1\2\3" in exif_in(f"rows-{target}")


@requires_vips
@pytest.mark.parametrize("kind", ["eXIf", "xmp"])
def test_an_orientation_behind_the_pixels_counts_by_rows(
    model: tuple[str, ...], infer: Infer, kind: str
) -> None:
    noise("plain.png", 9, 7)
    data = Path("plain.png").read_bytes()
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "Leica"
    told = {
        "eXIf": annotations.chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
        "xmp": annotations.chunk(
            b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation="6"/>'
        ),
    }[kind]
    Path("p.png").write_bytes(data[:-12] + told + data[-12:])
    assert infer("p.png", "-o", "rows.png", "--strip", "4", *model) == 0
    assert infer("p.png", "-o", "whole.png", *model) == 0
    with Image.open("rows.png") as rows, Image.open("whole.png") as whole:
        assert rows.size == whole.size == (18, 14)
    assert (b"Leica" in Path("rows.png").read_bytes()) == (kind == "eXIf")


@pytest.mark.parametrize("kind", ["float", "turned"])
def test_unusual_maps(
    model: tuple[str, ...], infer: Infer, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    tags = {33550: (FLOAT if kind == "float" else DOUBLE, [10.0, 12.0, 3.0]), 270: (ASCII, [65, 0])}
    if kind == "turned":
        tags[274] = (SHORT, [6])
    write_tiff(Path("p.tif"), np.arange(63 * 3).reshape(7, 9, 3), 8, 2, more=tags)
    assert infer("p.tif", "-o", "o.tif", *model) == 0
    with Path("o.tif").open("rb") as file:
        found = Tiff(file).directory()
    assert found[270].data == b"A\0"
    left_out = "p.tif: its place on earth is left out, as the picture is stored turned"
    assert (left_out in capsys.readouterr().err) == (kind == "turned")
    assert found[33550].numbers == (5, 6, 3) if kind == "float" else 33550 not in found


def test_what_pillow_warns_of_names_the_file(
    model: tuple[str, ...], infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {271: (ASCII, list(b"maker of pictures\0"))}
    path = write_tiff(Path("p.tif"), np.arange(63 * 3).reshape(7, 9, 3), 8, 2, more=more)
    data = path.read_bytes()
    place = data.index(struct.pack("<HHI", 271, 2, 18)) + 8
    path.write_bytes(data[:place] + struct.pack("<I", len(data) + 5) + data[place + 4 :])
    infer("p.tif", "-o", "o.tif", *model)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert lines
    assert all(line.startswith("warning: p.tif: ") for line in lines)
