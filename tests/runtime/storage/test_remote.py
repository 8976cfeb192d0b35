from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fsspec.registry import _registry

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.runtime.storage.remote import Remote


@pytest.mark.parametrize(
    ("url", "missing", "message"),
    [
        ("s3://bucket/a.png", "s3fs", "s3:// needs s3fs: pip install s3fs"),
        ("https://host/a.png", "aiohttp", "https:// needs aiohttp: pip install aiohttp"),
        ("s3://bucket/a.png", "fsspec", "s3:// needs fsspec: pip install 'dvmsr[remote]'"),
    ],
)
def test_a_missing_driver_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, missing: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    if missing != "fsspec":  # it keeps the drivers that it has found
        known = _registry
        monkeypatch.delitem(known, url.partition(":")[0], raising=False)
        monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    with pytest.raises(MissingComponentError) as caught:
        Remote(url).download(Path("a.png"))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (
            {"size": 3, "ETag": '"x"', "LastModified": 1, "type": "file"},
            {"bytes": 3, "modified": '"x"'},
        ),
        ({"size": None, "type": "file"}, {}),
        ({"size": 4, "mtime": 5.5}, {"bytes": 4, "modified": "5.5"}),
    ],
    ids=["S3", "web", "time"],
)
def test_what_stores_tell_of_an_object(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, object], expected: dict[str, object]
) -> None:
    monkeypatch.setattr(
        "dvmsr.runtime.storage.remote._driver",
        lambda remote: (SimpleNamespace(info=lambda path: info), "path"),
    )
    assert Remote("s3://bucket/a.png").state() == expected


class NoCredentials(Exception):
    """What drivers raise need not be an OSError."""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            NoCredentials("Unable to\nlocate credentials."),
            DvmsrError,
            "memory://b/a.png cannot be read (Unable to locate credentials); check its name, your "
            "credentials and the network",
        ),
        (TimeoutError(), DvmsrError, "memory://b/a.png cannot be read (TimeoutError); check"),
        (PermissionError("Forbidden"), DvmsrError, "memory://b/a.png cannot be read (Forbidden)"),
        (FileNotFoundError("x"), UsageError, "memory://b/a.png does not exist; check the name"),
        (OSError(28, "No space left"), DvmsrError, "memory://b/a.png has no room for its copy"),
        (
            TypeError("__init__() missing 1 required positional argument: 'fo'"),
            DvmsrError,
            "memory://b/a.png cannot be read (TypeError in its driver); check its name",
        ),
    ],
    ids=["credentials", "network", "permission", "missing", "disk", "inner words"],
)
def test_what_drivers_raise_becomes_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[DvmsrError], message: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(
        "dvmsr.runtime.storage.remote._driver",
        lambda remote: (SimpleNamespace(get_file=fail), "path"),
    )
    with pytest.raises(DvmsrError) as caught:
        Remote("memory://b/a.png").download(Path("copy.png"))
    assert type(caught.value) is kind and str(caught.value).startswith(message)
