"""`dvmsr-export triton`: arguments, streams and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from triton_config import read, tensors

Export = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def test_a_model_by_its_name(
    tmp_path: Path, export: Export, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export("student", "-o", "models", "--max-batch", 3, "--instances", 2) == 0
    out, err = capsys.readouterr()
    assert out == "models\n"
    assert err == f"serve it with: tritonserver --model-repository={tmp_path / 'models'}\n"
    config = read(Path("models/student"))
    assert config.backend == "python" and config.max_batch_size == 3
    assert config.instance_group[0].count == 2
    config = read(Path("models/student-pictures"))
    assert tensors(config.input) == {
        "picture": ("TYPE_STRING", [1]),
        "format": ("TYPE_STRING", [1]),
        "quality": ("TYPE_INT32", [1]),
    }
    assert [port.optional for port in config.input] == [False, True, True]
    assert config.model_warmup[0].batch_size == 1  # or the server leaves it out
    assert config.model_warmup[0].inputs["picture"].input_data_file == "picture"


def test_json(tmp_path: Path, export: Export, capsys: Captured) -> None:
    words = ("student", "student-x2", "-o", tmp_path / "models", "--json")
    assert export(*words) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert not err and report["repository"] == str(tmp_path / "models")
    assert [model["name"] for model in report["models"]] == [
        *("student", "student-pictures", "student-x2", "student-x2-pictures")
    ]
    for model in report["models"]:
        for file in model["files"]:
            assert (tmp_path / "models" / model["name"] / file).is_file()


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("student", "student-x2", "--name", "a"), "--name is for one model; leave it out", 2),
        (("student", "--name", "a/b"), "'a/b' cannot be the name of a model", 2),
        (("student", "--name", "../a"), "'../a' cannot be the name of a model", 2),
        (("student", "--backend", "pytorch"), "--backend must be one of auto, tensorrt, ", 2),
        (("student", "--max-batch", "0"), "--max-batch", 2),
        (("nobody",), "no model named nobody; there is student", 2),
        (("gone.onnx",), "gone.onnx does not exist; check the name", 2),
        (("text.onnx",), "text.onnx is no ONNX file or damaged", 5),
        (("module:factory",), "export it with `dvmsr-export onnx module:factory", 2),
    ],
)
def test_mistakes(
    words: tuple[str, ...],
    said: str,
    code: int,
    tmp_path: Path,
    export: Export,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.onnx").write_text("text")
    assert export(*words, "-o", "models") == code
    out, err = capsys.readouterr()
    assert said in err and not out and not Path("models").exists()
