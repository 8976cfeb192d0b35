"""Repositories are written entirely or not at all, and nothing of others is replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.export.triton import repository
from dvmsr.export.triton.layout import Layout

Export = Callable[..., int]


def layout(name: str, content: bytes = b"weights") -> Layout:
    return Layout(name, {"name": name, "backend": "python"}, {"1/model.py": content})


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_models_beside_others(tmp_path: Path) -> None:
    models = tmp_path / "deep" / "models"
    repository.write([layout("a"), layout("b")], models, overwrite=False)
    (models / "mine").mkdir()
    repository.write([layout("c")], models, overwrite=False)
    assert {path.name for path in models.iterdir()} == {"a", "b", "c", "mine"}
    record = json.loads((models / "a" / repository.RECORD).read_text())
    assert record["files"] == ["1/model.py", "config.pbtxt"]


def test_what_is_ours_is_replaced_if_that_is_allowed(tmp_path: Path) -> None:
    repository.write([layout("a")], tmp_path, overwrite=False)
    with pytest.raises(UsageError, match=r"a exists; allow that with --overwrite"):
        repository.write([layout("b"), layout("a", b"new")], tmp_path, overwrite=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
    cache = tmp_path / "a" / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").touch()
    repository.write([layout("a", b"new")], tmp_path, overwrite=True)
    assert tree(tmp_path)["a/1/model.py"] == b"new" and not cache.exists()


@pytest.mark.parametrize("other", ["2/model.py", "labels.txt"])
def test_what_is_not_ours_stays(tmp_path: Path, other: str) -> None:
    repository.write([layout("a")], tmp_path, overwrite=False)
    (tmp_path / "a" / other).parent.mkdir(exist_ok=True)
    (tmp_path / "a" / other).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=f"{other} was not written by dvmsr-export; move it away"):
        repository.write([layout("a", b"new")], tmp_path, overwrite=True)
    (tmp_path / "b").mkdir()
    with pytest.raises(UsageError, match=r"b was not written by dvmsr-export; move it away"):
        repository.write([layout("b")], tmp_path, overwrite=True)
    assert tree(tmp_path) == before


def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write([layout("a"), layout("b")], tmp_path / "models", overwrite=False)
    before = tree(tmp_path)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if target.name == "c":
            raise OSError(28, "No space left on device", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    new = [layout(name, b"new") for name in ("a", "b", "c")]
    with pytest.raises(DvmsrError, match=r"models cannot be written \(No space left on device\)"):
        repository.write(new, tmp_path / "models", overwrite=True)
    assert tree(tmp_path) == before
    with pytest.raises(DvmsrError):
        repository.write([layout("c")], tmp_path / "new", overwrite=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "models"]


def test_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is no folder; choose another with -o"):
        repository.check(["a"], tmp_path / "file", overwrite=True)
    with pytest.raises(UsageError, match="two models are called a; export one by itself"):
        repository.check(["a", "a"], tmp_path, overwrite=True)
