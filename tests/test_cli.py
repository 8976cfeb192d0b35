"""The `dvmsr` command: exit codes, what goes to stdout and stderr, and that help is quick."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dvmsr
from dvmsr.config import PRESETS, DVMSRConfig

Capture = pytest.CaptureFixture[str]
_ROOT = Path(dvmsr.__file__).parents[1]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    return folder


@pytest.mark.parametrize("module", ["dvmsr.cli", "dvmsr.export.cli", "dvmsr.runtime.cli"])
def test_version(module: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "argv", ["a command", "--version"])
    with pytest.raises(SystemExit) as exit:
        importlib.import_module(module).main()
    assert (exit.value.code or 0, *capsys.readouterr()) == (0, f"dvmsr {dvmsr.__version__}\n", "")


@pytest.mark.parametrize(
    "name", ["bench", "compare", "distill", "eval", "info", "lam", "parity", "serve", "train"]
)
def test_help_shows_examples(command, name: str) -> None:
    code, out, err = command(name, "-h")
    assert code == 0 and not err
    assert f"dvmsr {name} " in out.partition("Examples:")[2]


@pytest.mark.parametrize(
    "arguments",
    [[], *([name] for name in ("bench", "compare", "eval", "info", "lam", "parity", "serve"))],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from dvmsr.cli import main\n"
        f"sys.argv = ['dvmsr', *{arguments!r}, '--help']\n"
        "try: main()\n"
        "finally: print({'torch', 'numpy', 'PIL', 'onnxruntime'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_ROOT
    )
    assert result.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["eval"], ["eval", "x"], ["info"], ["eval", "x", "--model", "m", "--scale", 0]],
)
def test_wrong_usage_is_exit_code_2(command, arguments: list[object]) -> None:
    code, out, err = command(*arguments)
    assert code == 2 and not out
    assert err.startswith("error: ") and err.endswith("--help\n") and err.count("\n") == 1


def test_eval_prints_a_table(command, photos: Path) -> None:
    code, out, err = command("eval", photos, "--model", "bicubic", "--scale", 2)
    assert code == 0 and not err
    assert "scale 2" in out and "bicubic" in out and "photos" in out


def test_eval_prints_json_and_writes_files(command, photos: Path, tmp_path: Path) -> None:
    csv, pictures = tmp_path / "scores.csv", tmp_path / "pictures"
    code, out, err = command(
        "eval", photos, "--model", "bicubic", "--json", "--csv", csv, "--side-by-side", pictures
    )
    assert code == 0
    assert json.loads(out)["images"][0]["image"] == "noise.png"
    assert csv.read_text().startswith(
        "model,dataset,image,psnr_y,ssim_y\nbicubic,photos,noise.png,"
    )
    assert (pictures / "photos" / "noise.png").is_file()
    assert err.endswith("from left to right: bicubic, HR\n")


def test_eval_tells_of_reduced_depth(command, photos: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (48, 64), np.uint16)
    Image.fromarray(wide).save(photos / "wide.png")
    code, _, err = command("eval", photos, "--model", "bicubic")
    assert code == 0
    assert err.startswith("warning: ") and "wide.png" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "--model", "bicubic"], 2, "nowhere is not a folder"),
        (["photos", "--model", "missing.onnx"], 2, "missing.onnx does not exist"),
        (["photos", "--model", "photos/noise.png"], 2, "no model named photos/noise.png"),
        (["photos", "--model", "other.onnx"], 5, "other.onnx is no ONNX file"),
        (["photos", "--model", "other.onnx", "--backend", "gpu"], 2, "no backend gpu"),
        (["photos", "--model", "bicubic", "--csv", "photos"], 2, "photos exists and is not a file"),
    ],
)
def test_failures_are_one_line(
    command, photos: Path, arguments: list[str], code: int, message: str, monkeypatch
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("other.onnx").write_text("no model")
    found, _, err = command("eval", *arguments)
    assert found == code
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("name", list(PRESETS))
def test_info_of_presets(command, name: str) -> None:
    code, out, err = command("info", name, "--json")
    assert code == 0 and not err
    report = json.loads(out)
    assert DVMSRConfig.from_dict(report["config"]) == PRESETS[name]
    assert report["model"] == name


def test_info_as_text(command) -> None:
    """The student's figures in the paper and in the NTIRE 2024 report."""
    code, out, _ = command("info", "student")
    assert code == 0
    assert "424,428" in out and "20.168 G" in out and "26.7387 M" in out
    assert "layers.3.residual_group.blocks.1.mixer.scan" in out


def test_info_tells_that_the_released_weights_fit_another_preset(command) -> None:
    assert "4 RSSBs and fit the preset student" in command("info", "ntire-student")[1]
    assert "RSSBs" not in command("info", "student")[1]


def test_info_takes_a_size(command) -> None:
    report = json.loads(command("info", "student", "--size", "20x30", "--json")[1])
    assert (report["height"], report["width"]) == (20, 30)


@pytest.mark.parametrize(
    "size", ["20", "0x20", "20x", "axb", "20x30x3", "1" * 5000 + "x1", "999999x999999"]
)
def test_info_refuses_a_size(command, size: str) -> None:
    code, out, err = command("info", "student", "--size", size)
    assert code == 2 and not out
    assert "HEIGHTxWIDTH" in err


def test_info_of_a_checkpoint_and_an_onnx_file(command, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("torch")
    from dvmsr import checkpoint
    from dvmsr.export import export_onnx
    from dvmsr.model import DVMSR

    config = DVMSRConfig(channels=16, depths=(1,), scale=3)
    checkpoint.save(DVMSR(config), tmp_path / "small.safetensors")
    export_onnx(tmp_path / "small.safetensors", tmp_path / "small.onnx", verify=False)
    for name in ("small.safetensors", "small.onnx"):
        code, out, _ = command("info", tmp_path / name, "--json")
        assert code == 0
        report = json.loads(out)
        assert DVMSRConfig.from_dict(report["config"]) == config
        assert report["metadata"].get("dvmsr.colour_order") == (
            "RGB" if name.endswith("onnx") else None
        )
    assert "checkpoint_sha256" in command("info", tmp_path / "small.onnx")[1]


def test_info_refuses_what_is_no_model(command, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    assert command("info", tmp_path / "text.onnx")[0] == 5
    code, _, err = command("info", "pupil")
    assert code == 2
    assert "no model named pupil; there is student, teacher, ntire-student" in err
    assert command("info", tmp_path / "missing.pth")[0] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_standard_output_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-c", "from dvmsr.cli import main; main()", "info", "student"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
    assert result.returncode == 1
    assert result.stderr.startswith("error:") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["info", ""], ["eval", "", "--model", "bicubic"]])
def test_empty_argument_is_no_folder(command, arguments: list[str]) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert "an argument is empty" in err


def test_unusable_path_is_one_sentence(command) -> None:
    code, out, err = command("eval", "a" * 300, "--model", "bicubic")
    assert code in (1, 2) and not out
    assert err.startswith("error:") and err.count("\n") == 1


def test_want_of_memory_is_one_sentence(command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dvmsr.info.run", fail)
    code, out, err = command("info", "student")
    assert (code, out) == (1, "")
    assert err.startswith("error: there is not enough memory;") and err.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are any bytes")
def test_names_that_are_no_text_are_printed_somehow(photos: Path) -> None:
    folder = photos.rename(photos.with_name(os.fsdecode(b"caf\xe9")))
    program = "from dvmsr.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, "eval", folder, "--model", "bicubic"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        cwd=_ROOT,
    )
    assert result.returncode == 0
    assert "caf\\udce9" in result.stdout
