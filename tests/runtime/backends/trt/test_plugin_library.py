"""Which plugin library is found: the environment's, or the newest of the installed sources."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from dvmsr.errors import MissingComponentError
from dvmsr.runtime.backends.trt import plugin_library
from dvmsr.runtime.backends.trt.plugin_library import PluginLibrary


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(plugin_library.ENVIRONMENT, raising=False)
    return tmp_path / "dvmsr" / "tensorrt-plugin"


def put(
    cache: Path, name: str, age: int = 0, content: bytes = b"library", **changes: object
) -> PluginLibrary:
    """A library as `plugin_build` leaves it."""
    folder = cache / name
    folder.mkdir(parents=True)
    pure = folder / "libdvmsr_trt10.so"
    pure.write_bytes(content)
    digest, sources = hashlib.sha256(content).hexdigest(), plugin_library.sources_sha256()
    made = PluginLibrary(str(pure), None, 10, digest, ("89",), sources, "13.0.88")
    made = replace(made, **changes)  # type: ignore[arg-type]
    description = folder / plugin_library.DESCRIPTION
    description.write_text(json.dumps(made.to_dict()))
    os.utime(description, (1e9 - age, 1e9 - age))
    return made


def test_finds_the_newest(cache: Path) -> None:
    assert plugin_library.find(10) is None
    put(cache, "old", age=5)
    new = put(cache, "new")
    put(cache, "eleven", tensorrt_major=11)
    put(cache, "other", sources_sha256="of other sources")
    assert plugin_library.find(10) == new


def test_prefers_the_one_that_was_asked_for(cache: Path) -> None:
    old = put(cache, "old", age=5)
    new = put(cache, "new", content=b"newer")
    assert plugin_library.find(10, sha256=old.sha256) == old
    assert plugin_library.find(10, sha256="none of them") == new


def test_finds_one_for_the_gpu(cache: Path) -> None:
    ada = put(cache, "ada", architectures=("89-real",))
    hopper = put(cache, "hopper", age=5, architectures=("90-real",))
    assert plugin_library.find(10) == ada
    assert plugin_library.find(10, "9.0") == hopper
    assert plugin_library.find(10, "7.5") is None
    with pytest.raises(MissingComponentError, match=r"7\.5 .*plugin-path --build --tensorrt 10"):
        plugin_library.require(10, "7.5")


def test_ignores_what_is_damaged_or_gone(cache: Path) -> None:
    Path(put(cache, "gone").pure).unlink()
    put(cache, "broken")
    (cache / "broken" / "plugin.json").write_text("{")
    altered = put(cache, "altered", content=b"other code")
    Path(altered.pure).write_bytes(b"evil code.")
    put(cache, "boast", content=b"evil code", sha256=hashlib.sha256(b"library").hexdigest())
    put(cache, "list")
    (cache / "list" / "plugin.json").write_text("[]")
    assert plugin_library.find(10) is None


@pytest.mark.parametrize(
    ("architecture", "runs_on", "not_on"),
    [
        ("89-real", ["8.9"], ["8.6", "9.0"]),
        ("80-real", ["8.0", "8.6", "8.9"], ["7.5", "9.0"]),
        ("80-virtual", ["8.0", "9.0", "12.0"], ["7.5"]),
        ("120", ["12.0", "12.1", "13.0"], ["10.0"]),
    ],
)
def test_what_runs_where(
    cache: Path, architecture: str, runs_on: list[str], not_on: list[str]
) -> None:
    library = put(cache, "x", architectures=(architecture,))
    assert all(library.runs_on(capability) for capability in runs_on)
    assert not any(library.runs_on(capability) for capability in not_on)


def test_the_environment_comes_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, "cached")
    path = tmp_path / "libdvmsr_trt11.so"
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(path))
    with pytest.raises(MissingComponentError, match="must name an existing libdvmsr_trt<major>"):
        plugin_library.find(11)
    path.write_bytes(b"other")
    library = plugin_library.require(11, "8.9")
    assert (library.pure, library.tensorrt_major) == (str(path), 11)
    assert library.self_registering is None
    with pytest.raises(MissingComponentError, match="for TensorRT 11, not 10; name libdvmsr_trt10"):
        plugin_library.find(10)


def test_the_sources_are_installed() -> None:
    assert len(plugin_library.sources_sha256()) == 64
