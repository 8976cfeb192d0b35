"""A picture's file in memory."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from service import file_of
from small_model import Models

from dvmsr.runtime import Upscaler
from dvmsr.runtime.serving.encoded import Encoded, enlarge_encoded
from dvmsr.runtime.serving.enlarging import Wish
from dvmsr.runtime.serving.refusals import Refusal


@pytest.fixture
def upscaler(models: Models) -> Upscaler:
    return Upscaler.from_file(models.onnx, "portable")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files lie."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def enlarged(
    upscaler: Upscaler,
    data: bytes,
    extension: str | None = None,
    quality: int | None = None,
    most_pixels: int = 1000,
) -> Encoded:
    wish = Wish(upscaler.model, extension, quality)
    return enlarge_encoded(upscaler, data, wish, most_pixels)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_bytes_of_dvmsr_infer(
    format: str, upscaler: Upscaler, infer: Callable[..., int], folder: Path, scratch: Path
) -> None:
    data = file_of(4, 5, format=format)
    name = {"PNG": "a.png", "JPEG": "a.jpg", "WEBP": "a.webp"}[format]
    Path(name).write_bytes(data)
    assert infer(name, "-o", "out/", "--model", "m.onnx", "--backend", "portable") == 0
    (made,) = Path("out").iterdir()
    assert enlarged(upscaler, data).data == made.read_bytes()
    assert not list(scratch.glob("dvmsr-*"))


def test_what_is_lost_is_told_without_names_of_temporary_files(upscaler: Upscaler) -> None:
    made = enlarged(upscaler, file_of(4, 5, mode="RGBA"), ".jpg", 50)
    assert made.warnings == ("the result: JPEG holds no transparency, which becomes white",)
    with Image.open(io.BytesIO(made.data)) as image:
        assert image.format == "JPEG" and image.size == (10, 8)


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"", 422, "the picture is empty; get a complete copy of it"),
        (b"%PDF-1.7", 415, "the picture is not a PNG, JPEG"),
        (file_of(4, 5)[:-30], 422, "the picture is damaged or truncated; get a complete copy"),
        (file_of(40, 26), 413, "the picture has 1,040 pixels, and the service takes at most 1,000"),
    ],
)
def test_what_is_no_picture_or_too_large(
    data: bytes, status: int, said: str, upscaler: Upscaler, scratch: Path
) -> None:
    with pytest.raises(Refusal) as refused:
        enlarged(upscaler, data)
    assert refused.value.status == status and str(refused.value).startswith(said)
    assert not list(scratch.glob("dvmsr-*"))


def test_no_room_is_not_the_fault_of_the_picture(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def refusal() -> str:
        with pytest.raises(Refusal) as refused:
            enlarged(upscaler, file_of(4, 5))
        assert refused.value.status == 503 and refused.value.retry_after
        return str(refused.value)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert refusal().startswith("the service has no room for the picture")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    assert "cannot be used (No such file or directory)" in refusal()
    monkeypatch.setattr(Upscaler, "_enlarge_array", lambda *_: [0] * (1 << 62))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert refusal().startswith("the service has no memory for the picture")
