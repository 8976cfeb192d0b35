"""A picture's file in memory."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from small_model import Models, random_pixels

from dvmsr.errors import DvmsrError, ResourceError, UsageError
from dvmsr.runtime import Upscaler
from dvmsr.runtime.infer.encoded import check_format, check_pixels, enlarge_encoded


def picture(height: int = 4, width: int = 5, channels: int = 3, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random_pixels(height, width, channels)).save(buffer, format)
    return buffer.getvalue()


@pytest.fixture
def upscaler(models: Models) -> Upscaler:
    return Upscaler.from_file(models.onnx, "portable")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files lie."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_bytes_of_dvmsr_infer(
    format: str, upscaler: Upscaler, infer: Callable[..., int], folder: Path, scratch: Path
) -> None:
    data = picture(format=format)
    name = {"PNG": "a.png", "JPEG": "a.jpg", "WEBP": "a.webp"}[format]
    Path(name).write_bytes(data)
    assert infer(name, "-o", "out/", "--model", "m.onnx", "--backend", "portable") == 0
    (made,) = Path("out").iterdir()
    assert enlarge_encoded(upscaler, data).data == made.read_bytes()
    assert not list(scratch.glob("dvmsr-*"))


def test_what_is_lost_is_told_without_names_of_temporary_files(upscaler: Upscaler) -> None:
    made = enlarge_encoded(upscaler, picture(channels=4), ".jpg", 50)
    assert made.warnings == ("the result: JPEG holds no transparency, which becomes white",)
    with Image.open(io.BytesIO(made.data)) as image:
        assert image.format == "JPEG" and image.size == (10, 8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the picture is empty; get a complete copy of it"),
        (b"%PDF-1.7", "the picture is not a PNG, JPEG"),
        (picture()[:-30], "the picture is damaged or truncated; get a complete copy of it"),
    ],
)
def test_what_is_no_picture(data: bytes, said: str, upscaler: Upscaler, scratch: Path) -> None:
    with pytest.raises(DvmsrError) as refused:
        enlarge_encoded(upscaler, data)
    assert str(refused.value).startswith(said)
    assert not list(scratch.glob("dvmsr-*"))


def test_no_room_is_not_the_fault_of_the_picture(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ResourceError, match="the picture cannot be kept"):
            enlarge_encoded(upscaler, picture())
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(ResourceError, match="/nowhere"):
        enlarge_encoded(upscaler, picture())
    monkeypatch.setattr(Upscaler, "_enlarge_array", lambda *_: [0] * (1 << 62))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(ResourceError, match="the picture needs more memory than there is"):
        enlarge_encoded(upscaler, picture())


def test_the_most_pixels_are_those_of_all_frames() -> None:
    check_pixels(picture(), 20)
    with pytest.raises(DvmsrError, match="the picture has 20 pixels, and at most 19 are taken"):
        check_pixels(picture(), 19)


@pytest.mark.parametrize("name", ["png", "PNG", ".png"])
def test_names_of_formats(name: str) -> None:
    assert check_format(name) == ".png"


@pytest.mark.parametrize("name", ["", "xyz", "mp4", "\ufffd"])
def test_what_is_no_format_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^format must be one of png, .*avif.*, not '") as refused:
        check_format(name)
    assert "mp4," not in str(refused.value)
