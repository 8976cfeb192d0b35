"""`dvmsr-infer --ray`: on a Ray with two workers, and its parts without one."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from foreign_model import save_foreign
from PIL import Image
from small_model import random_pixels

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.options import Options
from dvmsr.runtime.infer.ray import (
    Cluster,
    Surroundings,
    Told,
    Worker,
    WorkersModel,
    surroundings_of,
)
from dvmsr.runtime.infer.results import Result
from dvmsr.runtime.storage.remote import Remote

Infer = Callable[..., int]
MODEL = WorkersModel("m.onnx", "portable", 1, None, None)

DRIVER = """
import os, shutil
from pathlib import Path
from fsspec import AbstractFileSystem

class Deadly(AbstractFileSystem):
    protocol = "deadly"

    def info(self, path, **_):
        return {"name": path, "size": 1, "type": "file"}

    def get_file(self, path, copy, **_):
        folder = Path(os.environ["DEADLY"])
        if "always" in path or not (folder / "died").exists():
            (folder / "died").touch()
            os._exit(1)
        shutil.copyfile(folder / "in/0.png", copy)
"""
"""A store that kills who reads from it, always or once."""


def picture(path: Path, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_pixels(4, 5)).convert(mode).save(path)
    return path


def deadly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the driver here and for the processes that Ray starts."""
    metadata = folder / "drivers" / "deadly-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[fsspec.specs]\ndeadly = deadly:Deadly\n")
    (folder / "drivers" / "deadly.py").write_text(DRIVER)
    (folder / "temporary").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # the names of its sockets must be short
    monkeypatch.setenv("TMPDIR", str(folder / "temporary"))
    monkeypatch.setenv("PYTHONPATH", str(folder / "drivers"))
    monkeypatch.setenv("DEADLY", str(folder))
    monkeypatch.syspath_prepend(str(folder / "drivers"))
    fsspec.register_implementation("deadly", "deadly.Deadly", clobber=True)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs ray (extra ray), not installed"
)
def test_two_workers(
    folder: Path,
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A dozen images; one is broken, one loses its worker once and one always."""
    deadly(folder, monkeypatch)
    for number in range(9):
        picture(folder / "in" / ("sub" if number % 2 else ".") / f"{number}.png")
    picture(folder / "in" / "clear.png", "RGBA").write_bytes(clear_pixel())
    Path("in/bad.png").write_text("text")
    Path("out").mkdir()
    Path("out/2_x2.jpg").write_text("mine")
    model = ("--model", "m.onnx", "--backend", "portable")
    inputs = ("deadly://x/always.png", "in", "deadly://x/once.png", "--format", "jpg")
    command = (*inputs, "-o", "out", "--manifest", "m.jsonl", "--json", *model)
    assert infer(*command, "--ray", "local", "--workers", "2") == 1
    captured = capfd.readouterr()

    assert captured.out, captured.err
    rows = {row["input"]: row for row in json.loads(captured.out)}
    failed = {name: row["error"] for name, row in rows.items() if row["status"] == "failed"}
    assert failed.pop("in/bad.png").startswith("in/bad.png is not a PNG")
    assert failed.pop("in/2.png").startswith("out/2_x2.jpg exists; allow that")
    lost = failed.pop("deadly://x/always.png")
    assert lost.startswith("deadly://x/always.png has lost 3 workers") and not failed
    done = [row for row in rows.values() if row["status"] == "done"]
    assert len(rows) == 13 and len(done) == 10 and Path("out/2_x2.jpg").read_text() == "mine"

    manifest = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert {row["input"] for row in manifest if row["status"] == "done"} == {
        row["input"] for row in done
    }
    assert sum(row["status"] == "begun" for row in manifest) == 12

    lines = captured.err.splitlines()
    assert "warning: out/clear_x2.jpg: JPEG holds no transparency, which becomes white" in lines
    assert lines[-1].startswith("3 of 13 images failed: ")
    assert len(lines) == 13 + 1 + 2, captured.err  # of each image, the warning, and the sums

    assert infer("in", "-o", "here", "--format", "jpg", *model) == 1
    for path in Path("here").rglob("*.jpg"):
        if path.name != "2_x2.jpg":
            assert path.read_bytes() == Path("out", path.relative_to("here")).read_bytes()


def clear_pixel() -> bytes:
    import io

    data = io.BytesIO()
    Image.new("RGBA", (3, 3), (1, 2, 3, 0)).save(data, "PNG")
    return data.getvalue()


def work(worker: Worker, job: Job) -> Told:
    told: Told = pickle.loads(worker({"number": 7, "job": pickle.dumps(job)})["told"])
    assert told.number == 7
    return told


def test_a_worker_finds_what_names_are_relative_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(picture(Path("in/a.png")), Path("a_x2.png"))
    surroundings = surroundings_of([job], MODEL)
    monkeypatch.chdir("/")
    told = work(Worker(MODEL, surroundings, Options()), job)
    assert isinstance(told.outcome, Result) and told.outcome.output == "a_x2.png"
    assert (folder / "a_x2.png").is_file()
    again = work(Worker(MODEL, surroundings, Options()), job)  # after a worker was lost
    assert isinstance(again.outcome, Result)


@pytest.mark.parametrize(
    ("model", "surroundings", "message"),
    [
        ("none.onnx", Surroundings(None), " says: none.onnx does not exist; check the name"),
        ("m.onnx", Surroundings("/none/here"), " does not see /none/here; name what all"),
        ("m.onnx", Surroundings(None, (".", "none")), " does not see none; name what all"),
    ],
    ids=["model", "current folder", "folder"],
)
def test_a_worker_that_does_not_see_what_it_needs(
    folder: Path, model: str, surroundings: Surroundings, message: str
) -> None:
    worker = Worker(dataclasses.replace(MODEL, name=model), surroundings, Options())
    told = work(worker, Job(Path("a.png"), Path("b.png")))
    assert told.fatal and isinstance(told.outcome, DvmsrError)
    assert str(told.outcome).startswith("the worker on ") and message in str(told.outcome)


def test_a_bug_is_told_with_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvmsr.runtime.infer.steps.Steps.work", lambda *_: 1 / 0)
    worker = Worker(MODEL, Surroundings(None), Options())
    told = work(worker, Job(picture(Path("a.png")), Path("b.png")))
    assert told.bug.endswith("ZeroDivisionError: division by zero\n") and "test_ray" in told.bug


def test_what_workers_must_see(folder: Path) -> None:
    full = folder / "a.png"
    assert surroundings_of(
        [Job(full, folder / "none" / "b.png")], WorkersModel("student", *MODEL_REST)
    ) == (Surroundings(None, (str(folder),)))
    assert surroundings_of([Job(Remote("s3://b/a"), Remote("s3://b/c"))], MODEL) == (
        Surroundings(str(folder))
    )


def test_a_worker_opens_another_network(folder: Path) -> None:
    save_foreign(folder / "other.onnx", "Round")
    upscaler = WorkersModel("other.onnx@255", "auto", 1, None, None).open()
    assert (upscaler.scale, upscaler.network.peak) == (2, 255)


MODEL_REST = ("portable", 1, None, None)


@pytest.mark.parametrize("address", ["", "head", "ray://", "ray://head", "ray://head:x", "x://h:1"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError, match="must be auto, local or ray://host:port"):
        Cluster(address, MODEL, None)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--ray", "local", "-"), 2, "- cannot be sent to a cluster"),
        (("--workers", "2", "a.png"), 2, "--workers are those of a cluster"),
        (("--ray", "local", "a.png"), 4, "--ray needs ray: pip install 'dvmsr[ray]'"),
    ],
    ids=["stream", "no cluster", "not installed"],
)
def test_refuses_what_does_not_fit(
    folder: Path,
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert infer(*arguments) == code
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs ray (extra ray), not installed"
)
def test_a_cluster_that_does_not_answer(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer("a.png", "--ray", "ray://127.0.0.1:9") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the Ray cluster ray://127.0.0.1:9 cannot be used (")
    assert error.count("\n") == 1
