"""`dvmsr-infer` as a user meets it: exit codes, both streams, and what lies in the folder after."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import foreign_model
import numpy as np
import onnx
import pytest
from no_threads import refuse_threads
from PIL import Image
from processes import wait_until
from small_model import Models, random_pixels, reference

from dvmsr import checkpoint
from dvmsr.kernels import cpu
from dvmsr.runtime.images.formats import READABLE
from dvmsr.runtime.infer.display import ProgressDisplay
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.steps import Steps
from dvmsr.utils.threads import NO_MORE

Infer = Callable[..., int]
MODEL = ("--model", "m.onnx", "--backend", "portable")


def picture(path: str, height: int = 4, width: int = 5) -> str:
    Image.fromarray(random_pixels(height, width)).save(path)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"m.onnx"}


def test_enlarges_an_image(
    folder: Path, infer: Infer, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(picture("p.png"), *MODEL) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"p_x2\.png: 5x4 -> 10x8 in \d\.\d\d s, [\d,]+ pixels/s\n", captured.err)
    assert names(folder) == {"p.png", "p_x2.png"}
    with Image.open("p_x2.png") as image:
        difference = np.asarray(image).astype(int) - reference(models.network, random_pixels(4, 5))
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_scale_chooses_the_network(folder: Path, infer: Infer, scale: int) -> None:
    assert infer(picture("p.png"), "--scale", str(scale)) == 0
    with Image.open(f"p_x{scale}.png") as image:
        assert image.size == (5 * scale, 4 * scale)


@pytest.mark.parametrize(
    ("output", "format"),
    [("o.png", "PNG"), ("o.JPG", "JPEG"), ("o.webp", "WEBP"), ("o.tiff", "TIFF"), ("o.bmp", "BMP")],
)
def test_the_output_chooses_the_format(
    folder: Path, infer: Infer, output: str, format: str
) -> None:
    assert infer(picture("p.png"), "-o", output, *MODEL) == 0
    with Image.open(output) as image:
        assert (image.format, image.size) == (format, (10, 8))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2000)], ids=["1x1", "3x2000"])
def test_unusual_sizes(folder: Path, infer: Infer, height: int, width: int) -> None:
    assert infer(picture("p.png", height, width), *MODEL) == 0
    with Image.open("p_x2.png") as image:
        assert image.size == (2 * width, 2 * height)


def test_reports_as_json(folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.png").write_text("text")
    assert infer(picture("a.png"), "bad.png", picture("b.jpg"), "-o", "out", "--json", *MODEL) == 1
    first, second, third = json.loads(capsys.readouterr().out)
    assert first.pop("seconds") >= 0
    assert first == {
        "input": "a.png",
        "status": "done",
        "output": str(Path("out", "a_x2.png")),
        "input_size": [5, 4],
        "output_size": [10, 8],
        "model": "m.onnx",
        "backend": "portable",
        "precision": "fp32",
        "strip": None,
        "frames": 1,
    }
    assert second == {
        "input": "bad.png",
        "status": "failed",
        "error": f"bad.png is not a {READABLE} image; convert it to one",
    }
    assert third["output"] == str(Path("out", "b_x2.jpg"))


def test_bad_images_do_not_stop_the_others(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(picture("whole.jpg", 40, 40)).read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("text")
    bad = ["cut.jpg", "empty.png", "text.png", "missing.png"]
    assert infer(*bad, "whole.jpg", *MODEL) == 1
    assert (folder / "whole_x2.jpg").is_file()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[1] for line in lines[:4]] == bad
    assert all(line.startswith("error: ") for line in lines[:4])
    assert lines[-1] == f"4 of 5 images failed: {', '.join(bad)}"
    assert names(folder) == {"cut.jpg", "empty.png", "text.png", "whole.jpg", "whole_x2.jpg"}


def test_another_network(folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a file of another program; one picture has a size that it does not take."""
    foreign_model.save_foreign(folder / "other.onnx", "Identity", shape=(1, 3, 4, "w"))
    pictures = picture("p.png", 4, 5), picture("low.png", 3, 5), picture("clear.png", 4, 7)
    assert infer(*pictures, "-o", "out", "--model", "other.onnx@1", "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert "other.onnx takes pictures of anyx4 pixels only, not 5x3" in rows[1].pop("error")
    assert (rows[0]["model"], rows[0]["backend"], rows[0]["strip"]) == (
        "other.onnx",
        "portable",
        None,
    )
    with Image.open("p.png") as image, Image.open("out/p_x2.png") as large:
        np.testing.assert_array_equal(foreign_model.repeated(np.asarray(image)), np.asarray(large))
    assert names(folder / "out") == {"p_x2.png", "clear_x2.png"}


def test_a_name_too_long_for_its_result_does_not_stop_the_others(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "a" * 251 + ".png"
    assert infer(picture(long), picture("p.png"), *MODEL) == 1
    assert names(folder) == {long, "p.png", "p_x2.png"}
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and long.removesuffix(".png") in errors[0]


def test_never_overwrites_unasked(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    picture("p.png")
    (folder / "p_x2.png").write_text("precious")
    assert infer("p.png", *MODEL) == 2
    assert "p_x2.png exists; allow that with --overwrite" in capsys.readouterr().err
    assert (folder / "p_x2.png").read_text() == "precious"
    assert infer("p.png", "--overwrite", *MODEL) == 0
    with Image.open("p_x2.png") as image:
        assert image.size == (10, 8)


def save_foreign(path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 18]>
        g (float[1] input) => (float[1] output) { output = Neg (input) }"""
    onnx.save(onnx.parser.parse_model(text), path)


def save_incomplete(path: Path, models: Models) -> None:
    import safetensors.torch

    tensors = models.network.state_dict()
    del tensors["norm_f.weight"]
    metadata = {checkpoint.CONFIG_KEY: models.network.config.to_json()}
    safetensors.torch.save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["p.png", "--model", "no.onnx"], 2, "no.onnx does not exist"),
        (["no.png", *MODEL], 2, "no.png does not exist"),
        (["p.png", "--model", "vgg"], 2, "no model named vgg; there is student"),
        (["p.png", "--model", "text.onnx"], 5, "text.onnx is no ONNX file or damaged"),
        (["p.png", "--model", "foreign.onnx"], 5, "foreign.onnx does not take one RGB picture"),
        (["p.png", "--model", "part.safetensors"], 5, "1 tensor (norm_f.weight)"),
        (["p.png", "--model", "text.pth"], 5, "text.pth is damaged or no PyTorch checkpoint"),
        (["p.png", *MODEL[:2], "--backend", "torch"], 2, "backend torch runs checkpoints"),
        (["p.png", *MODEL[:2], "--backend", "vulkan"], 2, "no backend vulkan"),
        (["p.png", *MODEL[:2], "--threads", "0"], 2, "--threads"),
        (["p.png", "--fast"], 2, "--fast"),
        (["p.png", *MODEL, "--strip", "8"], 2, "m.onnx computes whole images only"),
        (["p.png", *MODEL, "--strip", "0"], 2, "--strip"),
        (["p.png", *MODEL, "--memory", "much"], 2, "--memory takes an amount of memory such as 2G"),
        ([], 2, "missing argument"),
        (["p.png", "--scale", "5"], 2, "--scale must be one of 2, 3, 4, not 5"),
        (["p.png", *MODEL, "--scale", "4"], 2, "m.onnx has a scale of its own; leave out one"),
        (["p.png", "--model", "student-x2", "--scale", "3"], 2, "student-x2 has a scale of its"),
        (["p.png", "--engine", "e.engine", "--scale", "2"], 2, "leave out --model, --scale and"),
        (["void", *MODEL], 2, "void has no images"),
        (["p.png", "--engine", "text.onnx"], 2, "text.onnx is no engine, whose name ends in"),
        (["p.png", "--manifest", "-", *MODEL], 2, "--manifest - is no file"),
        (["p.png", "-o", "o.psd", *MODEL], 2, "o.psd must end in one of .png"),
        (["p.png", "--quality", "50", *MODEL], 2, "--quality is of JPEG, WebP and AVIF, and no"),
        (["p.png", "-o", "no/o.png", *MODEL], 2, "no is not a folder; create it"),
        (["p.png", "q/p.png", "-o", "out", *MODEL], 2, "would both be written to out/p_x2.png"),
        (
            ["p.png", "-o", "o.png", "--manifest", "o.png", "--overwrite", *MODEL],
            2,
            "o.png cannot be both the manifest and an image",
        ),
        (["p.png", "--manifest", "./p.png", "--resume", *MODEL], 2, "cannot be both the manifest"),
        (["p.png", "--name", "{stem:>100000000}{ext}", *MODEL], 2, "must contain {stem} and no"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_refuses_with_one_sentence(
    folder: Path,
    infer: Infer,
    models: Models,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    picture("p.png")
    for name in ("void", "q"):
        (folder / name).mkdir()
    picture("q/p.png")
    for name in ("text.onnx", "text.pth"):
        (folder / name).write_text("text")
    save_foreign(folder / "foreign.onnx")
    save_incomplete(folder / "part.safetensors", models)
    before = names(folder)
    assert infer(*arguments) == code
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert names(folder) == before


def test_by_strips(folder: Path, infer: Infer, streaming_file: Path) -> None:
    """The same picture, also where the whole would need more memory than there may be."""
    picture("p.png", 60, 7)
    model = ["--model", str(streaming_file), "--threads", "1"]
    assert infer("p.png", "-o", "whole.png", *model) == 0
    for name, option in (
        ("a", ["--strip", "1"]),
        ("b", ["--strip", "9"]),
        ("c", ["--memory", "30M"]),
    ):
        assert infer("p.png", "-o", f"{name}.png", *model, *option) == 0
        difference = pixels_of(folder / f"{name}.png") - pixels_of(folder / "whole.png")
        assert np.abs(difference).max() <= 1
    assert infer("p.png", "-o", "d.png", *model, "--memory", "10K") == 1


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_a_picture_too_large_for_the_memory(
    folder: Path,
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dvmsr.runtime.memory.available", lambda: 10**6)
    assert infer(picture("p.png", 100, 100), *MODEL) == 1
    assert "error: p.png has 100x100 pixels, which need about" in capsys.readouterr().err


def test_missing_native_operators(
    folder: Path,
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cpu, "library_path", lambda: None)
    picture("p.png")
    assert infer("p.png", "--model", "m.onnx", "--backend", "native") == 4
    assert infer("p.png", "--model", "m.onnx") == 0
    error, warning, _ = capsys.readouterr().err.splitlines()
    assert error.startswith("error: dvmsr was built without its native operators; reinstall")
    assert warning.startswith("warning: dvmsr was built without its native operators and uses")


def test_says_what_it_converts(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jpg", "b.jpg"):
        Image.new("CMYK", (3, 2)).save(name)
    assert infer("a.jpg", "b.jpg", *MODEL) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [
        f"warning: {name}.jpg: CMYK without a profile is converted to RGB, colours are approximate"
        for name in "ab"
    ]


def test_an_interrupt_in_mid_write_leaves_nothing(
    folder: Path,
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(descriptor: int) -> NoReturn:
        assert len(names(folder)) == 2  # the picture and a temporary file
        raise KeyboardInterrupt

    picture("p.png")
    monkeypatch.setattr(os, "fsync", interrupt)
    assert infer("p.png", *MODEL) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted"
    assert names(folder) == {"p.png"}


def test_an_interrupt_leaves_a_report_of_what_is_done(
    folder: Path,
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = Steps.work

    def interrupted(steps: Steps, job: Job, image: Image.Image) -> Any:
        if job.source.name == "b.png":
            raise KeyboardInterrupt
        return work(steps, job, image)

    monkeypatch.setattr(Steps, "work", interrupted)
    assert infer(picture("a.png"), picture("b.png"), picture("c.png"), "--json", *MODEL) == 130
    captured = capsys.readouterr()
    assert [entry["output"] for entry in json.loads(captured.out)] == ["a_x2.png"]
    assert captured.err.splitlines()[-1] == "interrupted"


@pytest.mark.parametrize("threads", [0, 1, 2, 3, 4])
def test_no_more_threads(
    folder: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], threads: int,
) -> None:  # fmt: skip
    """For signals, reading, writing, and running the network: one sentence, and JSON once the
    model is loaded."""
    picture("a.png")
    with monkeypatch.context() as patch:
        refuse_threads(patch, after=threads)
        code = infer("a.png", "--json", *MODEL)
    told = capsys.readouterr()
    if threads == 4:
        assert code == 0
    else:
        assert code == 1
        assert told.err.splitlines()[-1].endswith(NO_MORE)
        assert "Traceback" not in told.err
    if threads:
        (entry,) = json.loads(told.out)
        assert entry["status"] == ("done" if threads == 4 else "failed")
    assert names(folder) == {"a.png"} | ({"a_x2.png"} if threads == 4 else set())


UNPRIVILEGED = (
    "prlimit --nproc={0}:{0} setpriv --reuid={1} --regid={1} --clear-groups "
    "--inh-caps=-all,+dac_override --ambient-caps=-all,+dac_override"
)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("setpriv") and shutil.which("prlimit")) or os.geteuid() != 0,
    reason="needs to become another user, to whom `ulimit -u` applies",
)
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_no_more_threads_for_the_system(folder: Path, processes: int) -> None:
    """Of our own and of ONNX Runtime's pool."""
    user = 50_000 + os.getpid() % 10_000 + 10_000 * processes
    limits = UNPRIVILEGED.format(processes, user).split()
    program = [sys.executable, "-c", "from dvmsr.runtime.cli import main; main()"]
    result = subprocess.run(
        [*limits, *program, picture("a.png"), *MODEL, "--threads", "2", "--json"],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith(NO_MORE)
    assert "Traceback" not in result.stderr
    assert not result.stdout or json.loads(result.stdout)[0]["status"] == "failed"


def run_process(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"{code}\nfrom dvmsr.runtime.cli import main; main()"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *arguments], **pipes, **options)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_stops_the_network(folder: Path) -> None:
    """Within the run: it would take half a minute."""
    announce = (
        "from dvmsr.runtime.backends.onnxrt.library import onnxruntime\n"
        "run = onnxruntime.InferenceSession.run\n"
        "def announced(*arguments):\n"
        "    print('running', flush=True)\n"
        "    return run(*arguments)\n"
        "onnxruntime.InferenceSession.run = announced"
    )
    process = run_process(announce, picture("p.png", 1500, 1500), *MODEL)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.split() == ["interrupted"]
    assert names(folder) == {"p.png"}


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_full_disk(folder: Path) -> None:
    """A limit on the size of files fails in mid-write like a full disk."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    process = run_process(limit, picture("p.png", 40, 40), *MODEL)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith("error: p_x2.png cannot be written (File too large); choose another")
    assert err.count("\n") == 1
    assert names(folder) == {"p.png"}


def test_help_is_quick_and_shows_examples() -> None:
    """Nothing heavy is imported for it."""
    code = (
        "import atexit, sys\n"
        "heavy = {'torch', 'onnxruntime', 'numpy', 'PIL'}\n"
        "atexit.register(lambda: print('imported', heavy & set(sys.modules)))"
    )
    out, _ = run_process(code, "--help").communicate()
    assert "dvmsr-infer photo.jpg" in out
    assert out.endswith("imported set()\n")


@pytest.mark.parametrize(("images", "parts"), [(1, ()), (3, ("1/3", "1,234 pixels/s"))])
def test_a_terminal_sees_progress(
    monkeypatch: pytest.MonkeyPatch, images: int, parts: tuple[str, ...]
) -> None:
    """After a second, which is shortened here."""
    import io

    from rich.console import Console

    expected = ("[red]p.png 400x300", "━", "0:00:00", *parts)
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=80)
    monkeypatch.setattr("dvmsr.runtime.infer.display.stderr_console", lambda: terminal)
    monkeypatch.setattr("dvmsr.runtime.infer.display.DELAY", 0.05)
    with ProgressDisplay(images) as display:
        display.begin("[red]p.png", 400, 300)
        if images > 1:
            display.advance("1,234 pixels/s")
        wait_until(lambda: all(part in shown.getvalue() for part in expected))
