"""`dvmsr-infer` over folders, patterns and streams, in several sessions."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from processes import LIMIT, next_line
from small_model import random_pixels

from dvmsr.runtime import cli
from dvmsr.runtime.infer.plan import TEMPLATE

Infer = Callable[..., int]
MODEL = ("--model", "m.onnx", "--backend", "portable")


def picture(path: str, height: int = 4, width: int = 5) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_pixels(height, width)).save(path)
    return path


def tree(folder: str) -> set[str]:
    found = Path(folder).rglob("*")
    return {path.relative_to(folder).as_posix() for path in found if path.is_file()}


@pytest.fixture
def photos(folder: Path) -> list[str]:
    """Pictures at three depths."""
    return [picture(f"photos/{name}") for name in ("a.png", "b/c.jpg", "b/d/e.webp")]


def test_folders_are_made_again(photos: list[str], infer: Infer) -> None:
    assert infer("photos", "-o", "out", *MODEL) == 0
    assert tree("out") == {"a_x2.png", "b/c_x2.jpg", "b/d/e_x2.webp"}


def test_a_result_folder_inside_is_not_searched(photos: list[str], infer: Infer) -> None:
    for _ in range(2):
        assert infer("photos", "-o", "photos/large", "--overwrite", *MODEL) == 0
    assert tree("photos/large") == {"a_x2.png", "b/c_x2.jpg", "b/d/e_x2.webp"}


def test_patterns(photos: list[str], infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer("photos/**/*.jpg", "photos/?.png", "-o", "out", *MODEL) == 0
    assert tree("out") == {"a_x2.png", "b/c_x2.jpg"}
    assert infer("photos/*.bmp", *MODEL) == 2
    assert capsys.readouterr().err.endswith(
        "error: nothing matches photos/*.bmp; check the pattern\n"
    )


def test_a_file_whose_name_looks_like_a_pattern(folder: Path, infer: Infer) -> None:
    assert infer(picture("a[1].png"), *MODEL) == 0
    assert Path("a[1]_x2.png").is_file()


def test_names_and_format(photos: list[str], infer: Infer) -> None:
    options = ("--name", "{scale}-{stem}-large{ext}", "--format", "PNG")
    assert infer("photos", "-o", "out", *options, *MODEL) == 0
    assert tree("out") == {"2-a-large.png", "b/2-c-large.png", "b/d/2-e-large.png"}
    assert all(Image.open(Path("out", name)).format == "PNG" for name in tree("out"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--name", "x{ext}"), r"--name 'x{ext}' must contain {stem}"),
        (("--name", "{stem}"), r"--name '{stem}' must be a file name that ends with {ext}"),
        (("--name", "{stem}{size}{ext}"), r"no other field than {stem}, {suffix}, {scale}, {ext}"),
        (("--name", "{stem.__class__}{ext}"), r"no other field than"),
        (("--name", "{stem"), r"--name '{stem' must contain"),
        (("--name", "../{stem}{ext}"), r"must be a file name"),
        (("--format", "psd"), r"--format must be one of png, jpg, .*, not 'psd'"),
        (("--format", "png", "-o", "x.jpg"), r"x\.jpg names the format already"),
        (("--skip-existing", "--overwrite"), r"give one"),
        (("--resume",), r"name it with --manifest"),
        (("-o", "-", "--json"), r"--json would end up in the image"),
        (("-o", "-", "--manifest", "m.jsonl"), r"leave out --manifest"),
        (("-o", "-", "--name", "{stem}{ext}"), r"leave out --name"),
        (("-", "-o", "x.png"), r"- takes a single image"),
        (("-o", "-", "--format", "mp4"), r"--format mp4 is for videos, which - cannot take"),
        (("--name", "{stem}{ext}"), r"a\.png would be replaced by its own result; choose another"),
        (("--manifest", "no/m.jsonl", "-o", "x.png"), r"no is not a folder; create it"),
    ],
)
def test_refuses_what_does_not_fit(
    folder: Path,
    infer: Infer,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    import re

    picture("a.png")
    assert infer("a.png", *arguments, *MODEL) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error), error
    assert tree(".") == {"a.png", "m.onnx"}


def test_skip_existing(photos: list[str], infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/a_x2.png").write_text("mine")
    assert infer("photos", "-o", "out", "--skip-existing", "--json", *MODEL) == 0
    captured = capsys.readouterr()
    first, *others = json.loads(captured.out)
    assert first == {
        "input": str(Path("photos/a.png")),
        "status": "skipped",
        "output": str(Path("out/a_x2.png")),
    }
    assert [row["status"] for row in others] == ["done", "done"]
    assert "1 of 3 images skipped, their results exist\n" in captured.err
    assert Path("out/a_x2.png").read_text() == "mine"


def statuses(path: str = "m.jsonl") -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [(Path(row["input"]).name, row["status"]) for row in rows]


def test_a_manifest_and_going_on_with_it(photos: list[str], infer: Infer) -> None:
    Path("photos/b/bad.png").write_text("text")
    command = ("photos", "-o", "out", "--manifest", "m.jsonl", *MODEL)
    assert infer(*command) == 1
    done = [(name, status) for name in ("a.png", "c.jpg", "e.webp") for status in ("begun", "done")]
    assert sorted(statuses()) == sorted([*done, ("bad.png", "failed")])
    assert infer(*command) == 2  # it exists

    picture("photos/b/bad.png")
    picture("photos/a.png", 6, 7)
    kept = Path("out/b/c_x2.jpg").stat().st_mtime_ns
    before = len(statuses())
    assert infer(*command, "--resume") == 0
    again = [(name, status) for name in ("a.png", "bad.png") for status in ("begun", "done")]
    assert sorted(statuses()[before:]) == again
    assert Image.open("out/a_x2.png").size == (14, 12)
    assert Path("out/b/c_x2.jpg").stat().st_mtime_ns == kept


def test_going_on_never_replaces_what_is_not_its_own(photos: list[str], infer: Infer) -> None:
    Path("out").mkdir()
    Path("out/a_x2.png").write_text("mine")
    command = ("photos", "-o", "out", "--manifest", "m.jsonl", *MODEL)
    assert infer(*command) == 1
    assert infer(*command, "--resume") == 1
    assert Path("out/a_x2.png").read_text() == "mine"
    assert [pair for pair in statuses() if pair[0] == "a.png"] == [("a.png", "failed")] * 2


def test_a_result_that_was_written_before_a_crash_is_made_again(
    photos: list[str], infer: Infer
) -> None:
    command = ("photos/a.png", "-o", "out/", "--manifest", "m.jsonl", *MODEL)
    assert infer(*command) == 0
    begun, _ = Path("m.jsonl").read_text().splitlines()
    Path("m.jsonl").write_text(f"{begun}\n")  # killed just before the second line
    assert infer(*command, "--resume") == 0
    assert statuses() == [("a.png", "begun"), ("a.png", "begun"), ("a.png", "done")]


class Stream(SimpleNamespace):
    """Standard input or output, with bytes behind it."""

    def __init__(self, data: bytes = b"", terminal: bool = False) -> None:
        super().__init__(buffer=io.BytesIO(data), isatty=lambda: terminal, flush=bool)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_streams(folder: Path, format: str) -> None:
    data = io.BytesIO()
    Image.fromarray(random_pixels(4, 5)).save(data, format)
    code = "from dvmsr.runtime.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "-", *MODEL], input=data.getvalue(), capture_output=True
    )
    assert run.returncode == 0, run.stderr
    with Image.open(io.BytesIO(run.stdout)) as image:
        assert (image.format, image.size) == (format, (10, 8))
    assert run.stderr.startswith(b"-: 5x4 -> 10x8 in ")
    assert tree(".") == {"m.onnx"}


def test_from_a_stream_to_a_file_and_back(
    folder: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(picture("p.png")).read_bytes()
    monkeypatch.setattr(sys, "stdin", Stream(data))
    assert infer("-", "-o", "o.png", *MODEL) == 0
    monkeypatch.setattr(sys, "stdout", out := Stream())
    assert infer("p.png", "-o", "-", "--format", "bmp", *MODEL) == 0
    with Image.open(io.BytesIO(out.buffer.getvalue())) as there, Image.open("o.png") as here:
        assert there.format == "BMP"
        assert np.array_equal(np.asarray(there), np.asarray(here))


def test_json_lists_what_was_saved_before_the_process_was_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second picture takes long, so the first is saved, but not told of."""
    code = (
        "import os, sys, time\n"
        "from dvmsr.runtime.infer.steps import Steps\n"
        "work = Steps.work\n"
        "def slow(steps, job, picture):\n"
        "    if job.source.name == 'b.png':\n"
        "        while not os.path.exists('a_x2.png'):\n"
        "            time.sleep(0.01)\n"
        "        print('ready', file=sys.stderr, flush=True)\n"
        "        time.sleep(60)\n"
        "    return work(steps, job, picture)\n"
        "Steps.work = slow\n"
        "from dvmsr.runtime.cli import main; main()"
    )
    pictures = [picture("a.png"), picture("b.png")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *pictures, "--json", *MODEL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while next_line(process, process.stderr) not in ("ready\n", ""):
        pass
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 143
    assert [row["output"] for row in json.loads(out)] == ["a_x2.png"]


@pytest.mark.parametrize(
    ("data", "terminal", "code", "message"),
    [
        (
            b"text",
            False,
            1,
            "standard input is not a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF image",
        ),
        (b"", False, 1, "standard input is empty"),
        (b"", True, 2, "standard input is a terminal"),
    ],
    ids=["no image", "nothing", "terminal"],
)
def test_streams_that_bring_no_image(
    folder: Path,
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: bytes,
    terminal: bool,
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(data, terminal))
    assert infer("-", "-o", "o.png", *MODEL) == code
    assert f"error: {message}" in capsys.readouterr().err
    assert tree(".") == {"m.onnx"}


def test_a_reader_that_stops_is_one_sentence(folder: Path) -> None:
    picture("p.png", 200, 200)
    command = '"$0" -c "from dvmsr.runtime.cli import main; main()" p.png -o - --model m.onnx | :'
    run = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}", sys.executable],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("error: standard output takes no more (Broken")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("closed", ["0<&-", "1>&-"])
def test_a_closed_stream_is_one_sentence(folder: Path, closed: str) -> None:
    picture("p.png")
    command = '"$0" -c "from dvmsr.runtime.cli import main; main()" - --model m.onnx < p.png '
    run = subprocess.run(
        ["bash", "-c", command + closed, sys.executable], capture_output=True, text=True
    )
    assert run.returncode == 2
    stream = "input" if closed.startswith("0") else "output"
    assert run.stderr.splitlines()[-1].startswith(f"error: standard {stream} is closed; name a")
    assert "Traceback" not in run.stderr


def test_a_terminal_gets_no_image(
    folder: Path,
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(terminal=True))
    assert infer(picture("p.png"), "-o", "-", *MODEL) == 2
    assert "standard output is a terminal" in capsys.readouterr().err


def test_help_tells_the_template() -> None:
    from typer.testing import CliRunner

    assert TEMPLATE in CliRunner().invoke(cli.build_app(), ["--help"]).stdout


def test_two_hundred_mixed_files(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some of them broken: the right list, manifest and exit code, and all else enlarged."""
    rng = np.random.default_rng(0)
    extensions = ("png", "jpg", "webp", "tif", "bmp")
    broken = set()
    for number in range(200):
        path = Path("in", f"{number % 7}", f"{number:03}.{extensions[number % 5]}")
        picture(str(path), *(int(side) for side in rng.integers(1, 9, 2)))
        if number % 20 == 3:
            path.write_bytes(path.read_bytes()[:30] if number % 40 == 3 else b"")
            broken.add(str(path))
    assert infer("in", "-o", "out", "--manifest", "m.jsonl", "--json", *MODEL) == 1
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert {row["input"] for row in rows if row["status"] == "failed"} == broken
    assert sum(row["status"] == "done" for row in rows) == 190
    listed = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert {row["input"] for row in listed if row["status"] == "failed"} == broken
    assert sum(row["status"] == "done" for row in listed) == 190
    last = captured.err.splitlines()[-1]
    assert last.startswith("10 of 200 images failed: ") and all(name in last for name in broken)
    assert len(tree("out")) == 190
