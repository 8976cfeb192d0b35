"""`dvmsr-export`: arguments, streams and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from networks import random_network

from dvmsr import checkpoint
from dvmsr.export import cli
from dvmsr.export.onnx import verify
from dvmsr.export.onnx.parity import Parity
from dvmsr.weights.registry import find_model


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.safetensors"
    checkpoint.save(random_network(), path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dvmsr-export", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_default_names(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "onnx", str(source), "--no-verify") == 0
    assert run(monkeypatch, "onnx", str(source), "--no-verify", "--fp16") == 0
    assert run(monkeypatch, "onnx", str(source), "--no-verify", "--streaming", "--inline") == 0
    names = ["net.onnx", "net.fp16.onnx", "net.streaming.inline.onnx"]
    assert capsys.readouterr().out.split() == names
    assert Path("net.onnx").stat().st_size > Path("net.fp16.onnx").stat().st_size


def test_the_bundled_model_goes_by_its_name(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "onnx", "student", "--no-verify") == 0
    assert capsys.readouterr().out == "student.onnx\n"
    bundled = onnx.load(find_model("student"))
    made = onnx.load("student.onnx")
    assert made.graph == bundled.graph
    assert {p.key for p in made.metadata_props} == {p.key for p in bundled.metadata_props}
    assert run(monkeypatch, "onnx", "teacher", "--no-verify") == 2
    assert "no checkpoint named teacher; there is student" in capsys.readouterr().err


def test_a_network_of_others_in_half_precision(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["onnx", "mamba_patterns:ss2d", "--input", "1x6x8x8", "--fp16", "--no-verify"]
    assert run(monkeypatch, *words) == 0
    assert capsys.readouterr().out == "ss2d.fp16.onnx\n"
    said = {entry.key: entry.value for entry in onnx.load("ss2d.fp16.onnx").metadata_props}
    assert said["dvmsr.precision"] == "fp16"
    assert run(monkeypatch, *words, "--static", "1x8x8") == 2
    assert "--static does not go with mamba_patterns:ss2d" in capsys.readouterr().err


def test_json(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-o", "x.onnx", "--static", "1x6x8", "--opset", "17", "--json"]
    assert run(monkeypatch, "onnx", str(source), *options) == 0
    streams = capsys.readouterr()
    result = json.loads(streams.out)
    assert result["path"] == "x.onnx"
    assert result["opset"] == 17
    assert result["static_shape"] == [1, 6, 8]
    assert {p["shape"][1] for p in result["parity"]} == {6}
    assert "portable at 1x6x8" in streams.err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--static", "6x8"], 2),
        (["--static", "0x1x1"], 2),
        (["--static", ""], 2),
        (["--static", "1x-6x8"], 2),
        (["--opset", "9"], 2),
        (["--opset", "nine"], 2),
        (["-o", "nowhere/x.onnx"], 2),
        (["--bogus"], 2),
    ],
)
def test_usage_errors(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
) -> None:
    assert run(monkeypatch, "onnx", str(source), *options) == code
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("error: ") and streams.err.count("\n") == 1
    assert any(word in streams.err for word in (options[0].strip("-o"), "is empty"))
    assert not Path("net.onnx").exists()


def test_a_static_size_that_cannot_be_verified_says_what_to_do(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "onnx", str(source), "--static", "1x99999x99999") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: net.onnx cannot be verified: its input has 99999x99999 pixels")
    assert "add --no-verify" in error
    assert not Path("net.onnx").exists()


def test_failures_have_their_exit_codes(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "onnx", "missing.pth") == 2
    Path("net.onnx").touch()
    assert run(monkeypatch, "onnx", "net.onnx") == 2
    Path("net.onnx").unlink()
    source.with_suffix(".pth").write_text("hello")
    assert run(monkeypatch, "onnx", "net.pth") == 5
    monkeypatch.setattr(verify, "verify", lambda *_: [Parity("native", (1, 1, 1), 1.0, 0.0)])
    assert run(monkeypatch, "onnx", str(source)) == 3
    assert not Path("net.onnx").exists()
    monkeypatch.undo()
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 4
    assert "net.onnx is no checkpoint; name a file ending in" in errors[1]


def test_an_existing_file_needs_overwrite(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "onnx", str(source), "--no-verify") == 0
    assert run(monkeypatch, "onnx", str(source), "--no-verify") == 2
    assert run(monkeypatch, "onnx", str(source), "--no-verify", "--overwrite") == 0


def test_help_is_light_and_shows_examples() -> None:
    program = (
        "import sys\n"
        "from dvmsr.export import cli\n"
        "try: cli.build_app()(['onnx', '--help'])\n"
        "finally: print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "dvmsr-export onnx student\n" in result.stdout
    assert result.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad:", "bad: is no import path; write package.module:factory in Python's names"),
        (":f", ":f is no import path"),
        ("folder/own:net", "folder/own:net is no import path"),
        ("own::net", "own::net is no import path"),
        ("own.py:net", "own.py:net names a file; write the module, own:net"),
        ("own", "no checkpoint named own; there is student"),
        ("own.onnx", "own.onnx is no checkpoint"),
        ("own:other", "own has no other; name a factory that it has"),
        ("own:script", "what own:script returns is TorchScript; give the torch.nn.Module"),
    ],
)
def test_what_is_wrong_with_an_import_path(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    message: str,
) -> None:
    Path("own.py").write_text(
        "import torch\nprint('hello')\n"
        "def script(): return torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = run(monkeypatch, "onnx", name, "--input", "1x2")
    sys.modules.pop("own", None)
    assert code == (5 if "script" in name else 2)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in streams.err


def test_what_a_network_prints_is_no_result(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("chatty_of_a_test.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        print('here'); return x * 2\n"
        "def net():\n    print('made'); return Net()\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    options = ["--input", "1x2", "--no-verify", "--json"]
    assert run(monkeypatch, "onnx", "chatty_of_a_test:net", *options) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["path"] == "net.onnx"
    assert "made" in streams.err and "here" in streams.err
