from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from dvmsr.errors import DvmsrError
from dvmsr.utils import cache


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache.folder("kind") == tmp_path / ".cache" / "dvmsr" / "kind"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache.folder("kind") == tmp_path / "elsewhere" / "dvmsr" / "kind"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # there is no such user
    with pytest.raises(DvmsrError, match="no home folder for what is kept; set XDG_CACHE_HOME"):
        cache.folder("kind")


def test_what_holds_what(tmp_path: Path) -> None:
    path, digest = tmp_path / "file", hashlib.sha256(b"content").hexdigest()
    assert not cache.holds(path, digest)
    path.write_bytes(b"content")
    assert cache.holds(path, digest)
    path.write_bytes(b"damaged")
    assert not cache.holds(path, digest) and not cache.holds(tmp_path, digest)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EACCES, "set XDG"), (errno.ENOSPC, "make room or set XDG")],
)
def test_what_to_do_where_it_cannot_be_written(tmp_path: Path, number: int, remedy: str) -> None:
    with pytest.raises(DvmsrError) as caught, cache.writing(tmp_path):
        raise OSError(number, os.strerror(number), "a name")
    reason = os.strerror(number)
    assert str(caught.value) == (
        f"{tmp_path} cannot be written ({reason}); {remedy}_CACHE_HOME to another place"
    )


def test_keeps_whole_files(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        cache.keep(tmp_path / "file", content)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]
    with pytest.raises(DvmsrError, match=r"; choose another place with XDG_CACHE_HOME$"):
        cache.keep(tmp_path / "file" / "below", b"")
