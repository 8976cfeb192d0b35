"""Engines on disk: what is written is read again, and everything else is refused."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from engine_info import INFO, PLAN

from dvmsr import info
from dvmsr.config import DVMSRConfig
from dvmsr.errors import DvmsrError, IncompatibleModelError, UsageError
from dvmsr.runtime.backends.trt import engine_file
from dvmsr.runtime.backends.trt.engine_file import read_engine
from dvmsr.runtime.backends.trt.engine_info import EngineInfo
from dvmsr.runtime.backends.trt.profiles import InputProfile

FORMER = {
    **{key: value for key, value in json.loads(INFO.to_json()).items() if key != "profiles"},
    "profile": {"min": [1, 16, 16], "opt": [1, 256, 256], "max": [2, 1024, 1024]},
}
"""The same description in a format before the present one."""
SHRINKING = {"min": [1, 3, 9, 9], "opt": [1, 3, 8, 9], "max": [1, 3, 9, 9]}
FIXED = {name: [1, 3, 9, 9] for name in ("min", "opt", "max")}
FOREIGN = replace(
    INFO,
    model={"dvmsr.network": "my:net"},
    profiles={
        "x": InputProfile((1, 6, 8, 8), (1, 6, 16, 16), (2, 6, 32, 32)),
        "scale": InputProfile((), (), ()),
        "ids": InputProfile((1, 7), (1, 7), (1, 7)),
    },
)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "net.engine"
    engine_file.write_engine(path, PLAN, INFO, overwrite=False)
    return path


@pytest.mark.parametrize("told", [INFO, replace(INFO, plugin=None, gpu=None)])
def test_reads_what_was_written(tmp_path: Path, told: EngineInfo) -> None:
    path = tmp_path / "net.engine"
    engine_file.write_engine(path, PLAN, told, overwrite=False)
    assert read_engine(path) == (told, PLAN)
    assert path.read_bytes() == PLAN, "other programs load it, too"
    assert told.config == DVMSRConfig()


def test_nothing_is_replaced_unasked(engine: Path) -> None:
    with pytest.raises(UsageError, match=r"net\.engine exists; replace it with --overwrite"):
        engine_file.write_engine(engine, b"new", INFO, overwrite=False)
    assert read_engine(engine) == (INFO, PLAN)
    engine.unlink()
    with pytest.raises(UsageError, match=r"net\.engine\.json exists; replace it with --overwrite"):
        engine_file.write_engine(engine, PLAN, INFO, overwrite=False)
    assert [path.name for path in engine.parent.iterdir()] == ["net.engine.json"]


def no_links(source: Path, target: Path) -> NoReturn:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("links", [True, False])
def test_both_files_are_written_or_neither(
    engine: Path, monkeypatch: pytest.MonkeyPatch, before: bool, failing: int, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    engine.chmod(0o600)
    if not before:
        for path in (engine, engine_file.info_path(engine)):
            path.unlink()
    rename, calls = Path.replace, []

    def replace_or_fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(28, "No space left on device", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace_or_fail)
    with pytest.raises(DvmsrError, match="No space left"):
        engine_file.write_engine(engine, b"new", INFO, overwrite=True)
    monkeypatch.undo()
    names = ["net.engine", "net.engine.json"] if before else []
    assert sorted(path.name for path in engine.parent.iterdir()) == names
    if before:
        assert read_engine(engine) == (INFO, PLAN)
        assert engine.stat().st_mode & 0o777 == 0o600


def test_an_engine_made_meanwhile_is_kept(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_file, "check_target", lambda path, overwrite: None)
    found = iter([False, False, False, True])
    monkeypatch.setattr(engine_file, "exists", lambda path: next(found))
    with pytest.raises(UsageError, match=r"net\.engine exists; replace it with --overwrite"):
        engine_file.write_engine(engine, b"new", INFO, overwrite=False)
    assert read_engine(engine) == (INFO, PLAN)


def test_a_plan_of_another_build_is_refused(engine: Path) -> None:
    engine.write_bytes(PLAN[:-1])
    with pytest.raises(IncompatibleModelError, match=r"net\.engine is damaged or .*'my net"):
        read_engine(engine)


def test_a_plan_of_another_size_is_refused(engine: Path) -> None:
    engine_file.info_path(engine).write_text(replace(INFO, plan_bytes=7).to_json())
    with pytest.raises(IncompatibleModelError, match=r"net\.engine is damaged"):
        read_engine(engine)


def test_info_tells_a_damaged_engine(engine: Path) -> None:
    config, facts = info.read_config(str(engine))
    assert config == DVMSRConfig()
    assert facts["precision"] == "fp16"
    engine.write_bytes(PLAN[:-1] + b"x")
    with pytest.raises(IncompatibleModelError, match=r"net\.engine is damaged"):
        info.read_config(str(engine))


def test_a_missing_description_is_named(engine: Path) -> None:
    engine_file.info_path(engine).unlink()
    with pytest.raises(IncompatibleModelError, match=r"no net\.engine\.json beside it"):
        read_engine(engine)
    engine.unlink()
    with pytest.raises(DvmsrError, match="does not exist"):
        read_engine(engine)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "\xff",
        "[]",
        "null",
        "{}",
        '{"format": 1}',
        json.dumps({**json.loads(INFO.to_json()), "target": "tpu"}),
        json.dumps({**json.loads(INFO.to_json()), "profiles": {"input": {"min": 1, "opt": 3}}}),
        json.dumps({**json.loads(INFO.to_json()), "profiles": {"input": SHRINKING}}),
        json.dumps({**json.loads(INFO.to_json()), "profiles": {"x": FIXED}}),
        json.dumps({**json.loads(INFO.to_json()), "profiles": {"input": {**FIXED, "max": [1, 3]}}}),
        json.dumps({**json.loads(INFO.to_json()), "profiles": {"input": {**FIXED, "opt": ["4"]}}}),
        json.dumps({**json.loads(INFO.to_json()), "format": 2}),
        json.dumps({**json.loads(INFO.to_json()), "format": 2, "profile": {"min": [1, 2]}}),
        json.dumps({**json.loads(INFO.to_json()), "model": {}}),
        json.dumps({**json.loads(INFO.to_json()), "model": {"dvmsr.config": "{"}}),
        json.dumps({**json.loads(INFO.to_json()), "plugin": {"version": 1}}),
        json.dumps({**json.loads(INFO.to_json()), "plan_bytes": -1}),
        json.dumps({**json.loads(INFO.to_json()), "plan_bytes": True}),
        json.dumps({**json.loads(INFO.to_json()), "plugin_layers": -1}),
        json.dumps({**json.loads(INFO.to_json()), "build_seconds": float("nan")}),
        json.dumps({**json.loads(INFO.to_json()), "plan_sha256": "AB" * 32}),
        json.dumps({**json.loads(INFO.to_json()), "onnx_sha256": "ab"}),
        json.dumps({**json.loads(INFO.to_json()), "command": []}),
        json.dumps({**json.loads(INFO.to_json()), "compute_capabilities": []}),
        json.dumps({**json.loads(INFO.to_json()), "layers": {"fp16": -2}}),
    ],
)
def test_a_damaged_description_is_refused(engine: Path, text: str) -> None:
    engine_file.info_path(engine).write_text(text, encoding="latin-1")
    with pytest.raises(IncompatibleModelError, match=r"net\.engine\.json is damaged"):
        read_engine(engine)


@pytest.mark.parametrize("name", [field.name for field in fields(EngineInfo)])
@pytest.mark.parametrize("value", [[[]], {"a": []}])
def test_any_field_of_another_type_is_refused(engine: Path, name: str, value: Any) -> None:
    values = {**json.loads(INFO.to_json()), name: value}
    engine_file.info_path(engine).write_text(json.dumps(values))
    with pytest.raises(IncompatibleModelError, match="is damaged"):
        read_engine(engine)


def test_a_description_of_pictures_alone_is_read(engine: Path) -> None:
    """As it was before there were engines of other networks."""
    engine_file.info_path(engine).write_text(json.dumps({**FORMER, "format": 2}))
    assert read_engine(engine) == (INFO, PLAN)
    assert INFO.profiles["input"].max == (2, 3, 1024, 1024)


def test_an_engine_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "net.engine"
    engine_file.write_engine(path, PLAN, FOREIGN, overwrite=False)
    assert read_engine(path) == (FOREIGN, PLAN)
    assert not FOREIGN.is_dvmsr and INFO.is_dvmsr
    takes = "x 1x6x8x8 to 2x6x32x32, tuned for 1x6x16x16; scale one value; ids 1x7"
    assert FOREIGN.facts()["takes"] == takes
    values = {**json.loads(FOREIGN.to_json()), "model": {}}
    engine_file.info_path(path).write_text(json.dumps(values))
    with pytest.raises(IncompatibleModelError, match="is damaged"):
        read_engine(path)


def test_an_engine_of_the_former_operators_is_refused(engine: Path) -> None:
    values = {**FORMER, "format": 1}
    engine_file.info_path(engine).write_text(json.dumps(values))
    with pytest.raises(IncompatibleModelError) as caught:
        read_engine(engine)
    assert f"{engine} has dvmsr's operators in their former form" in str(caught.value)
    assert str(caught.value).endswith(INFO.rebuild)
    engine_file.info_path(engine).write_text(json.dumps({**values, "plugin": None}))
    assert read_engine(engine)[0].plugin is None  # its operators are standard ones


def test_a_newer_description_is_refused(engine: Path) -> None:
    engine_file.info_path(engine).write_text('{"format": 4}')
    with pytest.raises(IncompatibleModelError, match="upgrade dvmsr"):
        read_engine(engine)
