"""`dvmsr-infer` between files here and stores, one in memory and one that fails."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from small_model import random_pixels

from dvmsr.runtime.images.rows import vips

Infer = Callable[..., int]
MODEL = ("--model", "m.onnx", "--backend", "portable")


class FailingFile(io.BytesIO):
    """One that loses its connection while it is written, and shows what it has when closed."""

    def __init__(self, store: FailingStore, path: str) -> None:
        super().__init__()
        self.store, self.path = store, path

    def write(self, data: Any) -> int:
        super().write(data[:10])
        raise ConnectionError("the line went dead")

    def close(self) -> None:
        if not self.closed:
            self.store.pipe_file(self.path, self.getvalue())
        super().close()

    def commit(self) -> None:
        raise AssertionError("half an object must not be committed")

    def discard(self) -> None:
        self.close = super().close  # type: ignore[method-assign]


class FailingStore(MemoryFileSystem):
    """Has room for objects whose names do not contain `bad`, and loses those with `lost`."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("failing://"))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "b" in mode and "bad" in path and mode != "rb" and options.get("autocommit") is False:
            return FailingFile(self, path)
        if "lost" in path and mode == "rb":
            raise TimeoutError
        return super()._open(path, mode, **options)


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The folder `in` of the store in memory, with pictures; copies go to `temporary`."""
    (folder / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    fsspec.register_implementation("failing", FailingStore, clobber=True)
    files = fsspec.filesystem("memory")
    for kind in (files, fsspec.filesystem("failing")):
        kind.store.clear()
        for name in ("a.png", "b/c.jpg", "b/.d.png"):
            kind.pipe(f"/bucket/in/{name}", encoded(Path(name).suffix))
    yield files
    files.store.clear()
    assert list((folder / "temporary").iterdir()) == []


def encoded(suffix: str, height: int = 4, width: int = 5) -> bytes:
    data = io.BytesIO()
    format = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF"}[suffix]
    Image.fromarray(random_pixels(height, width)).save(data, format)
    return data.getvalue()


def test_results_are_those_of_files(store: Any, infer: Infer) -> None:
    Path("in/b").mkdir(parents=True)
    for name in ("a.png", "b/c.jpg"):
        Path("in", name).write_bytes(store.cat(f"/bucket/in/{name}"))
    assert infer("in", "-o", "out", *MODEL) == 0
    assert infer("memory://bucket/in", "-o", "memory://bucket/out", *MODEL) == 0
    assert infer("in/a.png", "-o", "memory://bucket/one.png", *MODEL) == 0
    assert infer("memory://bucket/in/a.png", *MODEL) == 0
    assert infer("memory://bucket/in/b/", "-o", Path("here").absolute().as_uri(), *MODEL) == 0
    a, c = (Path("out", name).read_bytes() for name in ("a_x2.png", "b/c_x2.jpg"))
    assert store.cat("/bucket/out/a_x2.png") == a == store.cat("/bucket/in/a_x2.png")
    assert store.cat("/bucket/out/b/c_x2.jpg") == c == Path("here/c_x2.jpg").read_bytes()
    assert store.cat("/bucket/one.png") == a
    assert len(store.find("/bucket/out")) == 2


def test_what_is_told_names_the_objects(
    store: Any, infer: Infer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cutout = io.BytesIO()
    pixels = np.dstack([random_pixels(3, 3), np.zeros((3, 3), np.uint8)])
    Image.fromarray(pixels).save(cutout, "PNG")
    store.pipe("/bucket/mixed/cutout.png", cutout.getvalue())
    store.pipe("/bucket/mixed/bad.png", b"text")
    command = ("memory://bucket/mixed", "-o", "memory://bucket/o", "--format", "jpg", "--json")
    assert infer(*command, *MODEL) == 1
    captured = capsys.readouterr()
    bad, done = json.loads(captured.out)
    assert bad["input"] == "memory://bucket/mixed/bad.png" and bad["status"] == "failed"
    assert bad["error"].startswith("memory://bucket/mixed/bad.png is not a PNG")
    assert done["input"] == "memory://bucket/mixed/cutout.png"
    assert done["output"] == "memory://bucket/o/cutout_x2.jpg"
    assert "memory://bucket/o/cutout_x2.jpg: JPEG holds no transparency" in captured.err
    assert "memory://bucket/o/cutout_x2.jpg: 3x3 -> 6x6" in captured.err
    assert "temporary" not in captured.err + captured.out


def test_what_exists_is_kept_skipped_or_replaced(
    store: Any, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("memory://bucket/in", "-o", "memory://bucket/out", *MODEL)
    store.pipe("/bucket/out/a_x2.png", b"mine")
    assert infer(*command) == 1
    error = "error: memory://bucket/out/a_x2.png exists; allow that with --overwrite"
    assert error in capsys.readouterr().err
    assert store.cat("/bucket/out/a_x2.png") == b"mine" and store.exists("/bucket/out/b/c_x2.jpg")
    assert infer(*command, "--skip-existing") == 0
    assert store.cat("/bucket/out/a_x2.png") == b"mine"
    assert infer(*command, "--overwrite") == 0
    assert store.cat("/bucket/out/a_x2.png") != b"mine"


def test_going_on_with_a_manifest(store: Any, infer: Infer) -> None:
    command = ("memory://bucket/in", "-o", "memory://bucket/out", "--manifest", "m.jsonl", *MODEL)
    assert infer(*command) == 0
    store.pipe("/bucket/in/a.png", encoded(".png", 6, 7))
    assert infer(*command, "--resume") == 0
    rows = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    told = [(row["input"].rpartition("/")[2], row["status"]) for row in rows]
    assert sorted(told[:4]) == [
        (name, status) for name in ("a.png", "c.jpg") for status in ("begun", "done")
    ]
    assert told[4:] == [("a.png", "begun"), ("a.png", "done")]
    assert rows[-1]["bytes"] == store.size("/bucket/in/a.png")
    assert Image.open(store.open("/bucket/out/a_x2.png")).size == (14, 12)


def test_a_store_that_fails_gets_no_half_object(
    store: Any, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = fsspec.filesystem("failing")
    failing.pipe("/bucket/in/bad.png", encoded(".png"))
    failing.pipe("/bucket/in/lost.png", encoded(".png"))
    failing.pipe("/bucket/out/bad_x2.png", b"before")
    command = ("failing://bucket/in", "-o", "failing://bucket/out", "--overwrite", *MODEL)
    assert infer(*command) == 1
    lines = capsys.readouterr().err.splitlines()
    remedy = "check its name, your credentials and the network"
    written = "failing://bucket/out/bad_x2.png cannot be written (the line went dead)"
    read = "failing://bucket/in/lost.png cannot be read (TimeoutError)"
    assert f"error: {written}; {remedy}" in lines and f"error: {read}; {remedy}" in lines
    assert failing.cat("/bucket/out/bad_x2.png") == b"before"
    assert sorted(failing.find("/bucket/out")) == [
        f"/bucket/out/{name}" for name in ("a_x2.png", "b/c_x2.jpg", "bad_x2.png")
    ]


class InPlace(ArrowFSWrapper):
    """As HDFS by Arrow: what is opened for writing is empty at once."""

    protocol = "inplace"

    def __init__(self) -> None:
        AbstractFileSystem.__init__(self)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": 1, "type": "file"}

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        raise AssertionError(f"{path} is lost")


def test_a_store_that_empties_what_it_replaces_is_refused(
    store: Any, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    fsspec.register_implementation("inplace", InPlace, clobber=True)
    command = ("memory://bucket/in/a.png", "-o", "inplace://bucket/a.png", "--overwrite")
    assert infer(*command, *MODEL) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: inplace:// shows results before they are whole; write to")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("memory://bucket/none.png",), 2, "memory://bucket/none.png does not exist"),
        (
            ("memory://bucket/in", "--manifest", "memory://bucket/m.jsonl"),
            2,
            "memory://bucket/m.jsonl cannot be added to line by line; name a file here",
        ),
    ],
    ids=["missing", "manifest"],
)
def test_what_does_not_fit(
    store: Any,
    infer: Infer,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    assert infer(*arguments, *MODEL) == code
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_from_a_store_to_standard_output(
    store: Any, infer: Infer, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert infer("memory://bucket/in/a.png", "-o", "-", *MODEL) == 0
    with Image.open(io.BytesIO(capfdbinary.readouterr().out)) as image:
        assert image.format == "PNG"


@pytest.mark.skipif(not vips.installed(), reason="needs pyvips (extra large)")
def test_by_rows(store: Any, infer: Infer, streaming_file: Path) -> None:
    store.pipe("/bucket/tall.tif", encoded(".tif", 20, 6))
    model = ("--model", str(streaming_file))
    assert infer("memory://bucket/tall.tif", "-o", "memory://bucket/whole.tif", *model) == 0
    command = ("memory://bucket/tall.tif", "-o", "memory://bucket/rows.tif", "--strip", "4")
    assert infer(*command, *model) == 0
    whole, rows = (
        np.asarray(Image.open(store.open(f"/bucket/{name}.tif"))).astype(int)
        for name in ("whole", "rows")
    )
    assert np.abs(whole - rows).max() <= 1


def test_local_pictures_need_no_fsspec(
    folder: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    Path("a.png").write_bytes(encoded(".png"))
    assert infer(Path("a.png").absolute().as_uri(), "-o", "b.png", *MODEL) == 0
    assert infer("a.png", "-o", "s3://bucket/b.png", *MODEL) == 4
