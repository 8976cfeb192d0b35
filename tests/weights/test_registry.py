from __future__ import annotations

from pathlib import Path

import pytest

import dvmsr
from dvmsr.errors import MissingComponentError, UsageError
from dvmsr.weights import registry


def test_a_name_is_a_bundled_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvmsr, "__path__", [str(tmp_path)])
    with pytest.raises(MissingComponentError, match="student is not installed; reinstall"):
        registry.find_model("student")
    (folder := tmp_path / "weights").mkdir()
    for name in ("dvmsr_x4.onnx", "dvmsr_x4.streaming.onnx", "dvmsr_x2.fp16.onnx"):
        (folder / name).touch()
    assert registry.find_model("student") == folder / "dvmsr_x4.onnx"
    assert registry.find_model("student", streaming=True) == folder / "dvmsr_x4.streaming.onnx"
    for streaming in (False, True):
        assert registry.find_model("student-x2-fp16", streaming) == folder / "dvmsr_x2.fp16.onnx"


@pytest.mark.parametrize(
    ("model", "scale", "name"),
    [
        (None, 2, "student-x2"),
        (None, 4, "student"),
        ("student", 3, "student-x3"),
        ("student-fp16", 2, "student-x2-fp16"),
        ("student-fp16", 4, "student-fp16"),
        ("student-x3", 3, "student-x3"),
        ("student-x3-fp16", 3, "student-x3-fp16"),
    ],
)
def test_a_scale_chooses_among_the_bundled_networks(
    model: str | None, scale: int, name: str
) -> None:
    assert registry.at_scale(model, scale) == name
    assert name in registry.MODELS


@pytest.mark.parametrize(
    ("model", "scale", "message"),
    [
        (None, 5, "--scale must be one of 2, 3, 4, not 5"),
        ("student-x2", 3, "student-x2 has a scale of its own; leave out one of the two"),
        ("paper", 4, "paper has a scale of its own"),
        ("m.onnx", 2, "m.onnx has a scale of its own"),
        ("student-x2-fp16", 4, "student-x2-fp16 has a scale of its own"),
    ],
)
def test_a_scale_that_there_is_not(model: str | None, scale: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        registry.at_scale(model, scale)


def test_weights_have_names_too(tmp_path: Path) -> None:
    assert registry.find_checkpoint("student").name == "dvmsr_x4.safetensors"
    (path := tmp_path / "m.PTH").touch()
    assert registry.find_checkpoint(path) == registry.find_checkpoint(str(path)) == path
    for name, message in {
        "student-fp16": "no checkpoint named student-fp16; there is student, student-x2,",
        str(tmp_path / "m"): "student-x3, paper, paper-ntire, or name a file ending in",
        "m.onnx": "m.onnx is no checkpoint; name a file ending in .safetensors",
        "m.pth": "m.pth does not exist",
    }.items():
        with pytest.raises(UsageError) as caught:
            registry.find_checkpoint(name)
        assert message in str(caught.value)


@pytest.mark.parametrize("name", ["m.onnx", "M.PTH", "m.pt", "m.safetensors"])
def test_anything_else_is_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UsageError, match="does not exist"):
        registry.find_model(path)
    path.touch()
    assert registry.find_model(path) == registry.find_model(str(path)) == path


@pytest.mark.parametrize("name", ["teacher_x9", "", "photo.png"])
def test_lists_the_names_and_extensions(name: str) -> None:
    with pytest.raises(UsageError, match=rf"there is {', '.join(registry.MODELS)}, or name"):
        registry.find_model(name)


def test_ranges_of_values(tmp_path: Path) -> None:
    assert registry.split_range("a/m.onnx@255") == ("a/m.onnx", 255)
    assert registry.split_range("m.ONNX@1") == ("m.ONNX", 1)
    assert registry.split_range("m.onnx") == ("m.onnx", None)
    assert registry.split_range("me@home/m.onnx") == ("me@home/m.onnx", None)
    (tmp_path / "m.onnx@1").touch()
    assert registry.split_range(str(tmp_path / "m.onnx@1")) == (str(tmp_path / "m.onnx@1"), None)
    with pytest.raises(UsageError, match="write @1 for 0 to 1 or @255"):
        registry.split_range("m.onnx@2")


def test_a_factory_is_no_file() -> None:
    with pytest.raises(UsageError, match="`dvmsr-export onnx nets:vim --input SIZES`"):
        registry.find_model("nets:vim")
