"""`dvmsr-infer --ray`: what can be told without a running Ray."""

from __future__ import annotations

import dataclasses
import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from small_model import random_pixels

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.batch import Options, Result
from dvmsr.runtime.cluster import Cluster, Model, Surroundings, Told, Worker, _surroundings
from dvmsr.runtime.naming import Job
from dvmsr.runtime.places import Remote

Infer = Callable[..., int]
MODEL = Model("m.onnx", "portable", 1, None, None)


def picture(path: Path, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_pixels(4, 5)).convert(mode).save(path)
    return path


def work(worker: Worker, job: Job) -> Told:
    told: Told = pickle.loads(worker({"number": 7, "job": pickle.dumps(job)})["told"])
    assert told.number == 7
    return told


def test_a_worker_finds_what_names_are_relative_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(picture(Path("in/a.png")), Path("a_x2.png"))
    surroundings = _surroundings([job], MODEL)
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
    monkeypatch.setattr("dvmsr.runtime.batch.Steps.work", lambda *_: 1 / 0)
    worker = Worker(MODEL, Surroundings(None), Options())
    told = work(worker, Job(picture(Path("a.png")), Path("b.png")))
    assert told.bug.endswith("ZeroDivisionError: division by zero\n") and "test_cluster" in told.bug


def test_what_workers_must_see(folder: Path) -> None:
    full = folder / "a.png"
    assert _surroundings([Job(full, folder / "none" / "b.png")], Model("student", *MODEL_REST)) == (
        Surroundings(None, (str(folder),))
    )
    assert _surroundings([Job(Remote("s3://b/a"), Remote("s3://b/c"))], MODEL) == (
        Surroundings(str(folder))
    )


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
