"""No memory, threads or provider left, and networks that have no end."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from endless_model import save_endless
from no_threads import refuse_threads
from PIL import Image
from small_model import CONFIG, Models

from dvmsr import cli
from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError
from dvmsr.runtime.backends.onnxrt.foreign import ForeignNetwork
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.network import OnnxNetwork, open_session, run_session


@pytest.mark.parametrize(
    ("provider", "said", "kind", "sentence"),
    [
        ("CPU", "env.cc:327 pthread_create failed, error code: 11", DvmsrError, "no further thr"),
        ("CUDA", "env.cc:327 pthread_create failed, error code: 11", DvmsrError, "no further thr"),
        ("CPU", "Exception during initialization: std::bad_alloc", DvmsrError, "needs more memory"),
        ("CPU", "no such operator", IncompatibleModelError, r"\(no such operator\); export it"),
        ("CUDA", "CUDA failure 35", MissingComponentError, "CUDA provider does not load"),
    ],
)
def test_a_session_that_cannot_be_made(
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    provider: str,
    said: str,
    kind: type[DvmsrError],
    sentence: str,
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError(said)

    inner = onnxruntime.capi.onnxruntime_inference_collection.C
    monkeypatch.setattr(inner, "InferenceSession", fail)
    options = onnxruntime.SessionOptions()
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(inner, "get_available_providers", lambda: available)
    with pytest.raises(kind, match=sentence) as caught:
        open_session(str(models.onnx), options, models.onnx, f"{provider}ExecutionProvider")
    assert type(caught.value) is kind
    assert capsys.readouterr() == ("", "")  # it is not tried again, which would be told there


@pytest.mark.parametrize("remedy", [None, "give smaller ones"])
@pytest.mark.parametrize(
    ("provider", "said", "kind", "sentence"),
    [
        ("CPU", "Failed to allocate memory for", DvmsrError, "needs more memory to be run .*"),
        ("CPU", "std::bad_alloc", DvmsrError, "needs more memory to be run .*"),
        ("CUDA", "CUDA failure 2: out of memory", DvmsrError, "needs more memory to be run .*"),
        (
            "CPU",
            "mismatch",
            IncompatibleModelError,
            r"cannot be computed \(mismatch\); export it .*",
        ),
        ("CUDA", "CUDA failure 700", DvmsrError, r"failed on m\.onnx \(CUDA failure 700\); try .*"),
    ],
)
def test_a_run_that_fails(
    provider: str, said: str, kind: type[DvmsrError], sentence: str, remedy: str | None
) -> None:
    """Of the caller's own inputs it is not known that they suit the file."""

    class Session:
        def run(self, *_: object) -> None:
            raise RuntimeError(said)

        def get_providers(self) -> list[str]:
            return [f"{provider}ExecutionProvider"]

    if remedy and "memory" not in sentence:
        kind, sentence = DvmsrError, rf"failed on m\.onnx \({said}\); {remedy}"
    with pytest.raises(kind, match=sentence + "$") as caught:
        run_session(Session(), ["output"], {}, Path("m.onnx"), remedy=remedy)
    assert type(caught.value) is kind


def test_fp32_on_a_gpu_is_not_tf32(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is said to the one provider is not said to the other, which would refuse it."""
    told = []

    class Session:
        def __init__(self, *_: object) -> None:
            pass

        def initialize_session(self, names: list[str], options: list[object], _: object) -> None:
            told.append(dict(zip(names, options, strict=True)))
            raise RuntimeError("far enough")

    inner = onnxruntime.capi.onnxruntime_inference_collection.C
    monkeypatch.setattr(inner, "InferenceSession", Session)
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(inner, "get_available_providers", lambda: available)
    for provider in available:
        with pytest.raises(DvmsrError, match="far enough"):
            open_session(str(models.onnx), onnxruntime.SessionOptions(), models.onnx, provider)
    assert told == [
        {"CUDAExecutionProvider": {"use_tf32": "0"}},
        {"CPUExecutionProvider": {}},
    ]


def test_no_thread_to_run_in(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    network = OnnxNetwork(models.onnx, "portable", 1)
    image = np.zeros((1, 3, 4, 4), np.float32)
    with monkeypatch.context() as patch:
        refuse_threads(patch)
        with pytest.raises(DvmsrError, match=r"^no further thread or process can be started; end"):
            network(image)
    assert network(image).shape == (1, 3, 8, 8)


def test_a_run_that_has_no_end(tmp_path: Path) -> None:
    """Is ended, and its thread with it."""
    network = OnnxNetwork(save_endless(tmp_path / "m.onnx", CONFIG), "portable", 1)
    network.time_limit = 0.1
    threads = threading.active_count()
    with pytest.raises(
        DvmsrError,
        match=r"m\.onnx was ended after 0\.1 seconds in one run, .* --time-limit \(600 by def",
    ):
        network(np.zeros((1, 3, 4, 4), np.float32))
    assert threading.active_count() == threads


def test_what_other_programs_made_has_no_end(tmp_path: Path) -> None:
    path = save_endless(tmp_path / "m.onnx")
    with pytest.raises(DvmsrError, match=r"after 0\.1 seconds in one run"):
        ForeignNetwork(path, "portable", None, time_limit=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "parity e.onnx:portable m.onnx:portable",
        "parity m.onnx:portable e.onnx:portable",
        "bench m.onnx:portable e.onnx:portable --rounds 1 --warmup 0 --size 8x8",
        "compare p.png --model e.onnx --html page.html",
        "compare p.png --model foreign.onnx@1 --html page.html",
        "eval . --model e.onnx --backend portable",
    ],
)
def test_every_command_ends_it(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_endless(folder / "e.onnx", CONFIG)
    save_endless(folder / "foreign.onnx")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("p.png")
    before = set(folder.iterdir())
    monkeypatch.setattr("sys.argv", ["dvmsr", *command.split(), "--time-limit", "0.3"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr()
    assert end.value.code == 1
    said = [line for line in told.err.splitlines() if "was ended after 0.3 seconds" in line]
    assert len(said) == 1
    assert "e.onnx" in said[0] or "foreign.onnx" in said[0]
    assert "Traceback" not in told.err
    assert set(folder.iterdir()) == before
