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
    file = tmp_path / "weights" / registry.BUNDLED["student"]
    file.parent.mkdir()
    file.touch()
    assert registry.find_model("student") == file
    streaming = file.with_name(registry.BUNDLED_STREAMING["student"])
    streaming.touch()
    assert registry.find_model("student", streaming=True) == streaming
    half = file.with_name(registry.BUNDLED["student-fp16"])
    half.touch()
    assert registry.find_model("student-fp16", streaming=True) == half


@pytest.mark.parametrize("name", ["m.onnx", "M.PTH", "m.pt", "m.safetensors"])
def test_anything_else_is_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UsageError, match="does not exist"):
        registry.find_model(path)
    path.touch()
    assert registry.find_model(path) == registry.find_model(str(path)) == path


@pytest.mark.parametrize("name", ["teacher_x9", "", "photo.png"])
def test_lists_the_names_and_extensions(name: str) -> None:
    with pytest.raises(UsageError, match=r"there is student, student-fp16, or name a file"):
        registry.find_model(name)
