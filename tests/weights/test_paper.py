"""The names `paper` and `paper-ntire`: what is fetched, kept and run."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from file_server import FileServer, serving
from networks import random_network
from PIL import Image
from processes import LIMIT, wait_until
from shared import official_weights, requires_shared
from small_model import random_pixels

from dvmsr.config import PRESETS
from dvmsr.errors import MissingComponentError
from dvmsr.runtime import Upscaler, open_model
from dvmsr.utils import download, offline
from dvmsr.weights import paper, registry

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint of the student's size."""
    path = tmp_path_factory.mktemp("made-up") / "random.pth"
    torch.save(random_network(PRESETS["student"], spread=0.01).state_dict(), path)
    return path.read_bytes()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fetched weights, empty; whoever asks for the network fails."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv(offline.VARIABLE, "")
    monkeypatch.setattr(paper, "ADDRESS", "http://127.0.0.1:9/nothing")
    monkeypatch.setattr(download, "PAUSE", 0)
    return tmp_path / "cache" / "dvmsr" / "weights"


@pytest.fixture
def server(content: bytes, kept: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Has that checkpoint as the paper's."""
    digest = hashlib.sha256(content).hexdigest()
    made_up = dataclasses.replace(paper.FILES["paper"], size=len(content), sha256=digest)
    monkeypatch.setitem(paper.FILES, "paper", made_up)
    with serving(content) as told:
        monkeypatch.setattr(paper, "ADDRESS", f"{told.address}/zoo")
        yield told


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: words -> exit code, stdout, stderr."""
    modules = {"dvmsr": "cli", "dvmsr-export": "export.cli", "dvmsr-infer": "runtime.cli"}

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        with pytest.raises(SystemExit) as exit:
            importlib.import_module(f"dvmsr.{modules[str(words[0])]}").main()
        return int(exit.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the current folder, and below `photos`."""
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    Image.fromarray(random_pixels(64, 80)).save(tmp_path / "photos" / "a.png")
    Image.fromarray(random_pixels(12, 16)).save(path := tmp_path / "photo.png")
    return path


def test_the_sources_are_pinned() -> None:
    assert f"https://raw.githubusercontent.com/{paper.REPOSITORY}/{paper.COMMIT}" in paper.ADDRESS
    assert len(paper.COMMIT) == 40 and registry.MODELS[-2:] == ("paper", "paper-ntire")


@requires_shared
@pytest.mark.parametrize(
    ("name", "file"), [("paper", "dvmsr_df2k"), ("paper-ntire", "dvmsr_ntire")]
)
def test_they_are_the_official_files(name: str, file: str) -> None:
    data = official_weights(file).read_bytes()
    published = paper.FILES[name]
    assert (published.size, published.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_is_fetched_once_and_says_so(server: FileServer, kept: Path, photo: Path, run: Run) -> None:
    code, out, err = run("dvmsr-infer", photo, "--model", "paper")
    assert code == 0 and "photo_x4.png" in out + err
    assert server.asked == [("/zoo/DVMSR.pth", None)]
    (said,) = (line for line in err.splitlines() if line.startswith("fetching"))
    assert said == (
        "fetching the weights of the paper's student, "
        f"{len(server.content) / 2**20:.1f} MiB, once, "
        f"from {server.address}/zoo/DVMSR.pth; they are under the MIT licence, see there"
    )
    code, _, err = run("dvmsr-infer", photo, "--model", "paper", "-o", "b.png", "--offline")
    assert code == 0 and "fetching" not in err and len(server.asked) == 1
    assert Path("b.png").read_bytes() == Path("photo_x4.png").read_bytes()
    names = sorted(path.name.partition("-")[0] for path in kept.iterdir())
    assert names == [".lock", "DVMSR.pth", "paper"]


@pytest.mark.slow
def test_computes_what_the_weights_say(server: FileServer, kept: Path) -> None:
    image = random_pixels(20, 28) / np.float32(255)
    by_name = {
        backend: Upscaler.from_file("paper", backend=backend)(image)
        for backend in ("auto", "portable", "torch")
    }
    expected = Upscaler.from_file(kept / "DVMSR.pth")(image)
    for result in by_name.values():
        assert np.abs(result - expected).max() < 2e-4
    assert np.abs(Upscaler.from_file("student")(image) - expected).max() > 0.01
    x = np.moveaxis(image, -1, 0)[None].astype(np.float32)
    (whole,) = open_model("paper")(input=x).values()
    assert np.abs(np.moveaxis(whole[0], 0, -1).clip(0, 1) - expected).max() < 2e-4
    assert len(server.asked) == 1


@pytest.mark.slow
def test_needs_neither_torch_nor_onnx(server: FileServer, photo: Path) -> None:
    without = "import sys; sys.modules |= dict.fromkeys(('torch', 'onnx', 'safetensors'))\n"
    code, err = finish(start(photo, "out.png", before=without))
    assert code == 0, err
    assert Path("out.png").exists()


def test_goes_to_other_processes_by_its_name(server: FileServer) -> None:
    sent = pickle.dumps(Upscaler.from_file("paper"))
    assert b"paper" in sent and b"cache" not in sent
    assert pickle.loads(sent).model == Upscaler.from_file("paper").model


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_damaged_is_made_again(server: FileServer, kept: Path, streaming: bool) -> None:
    path = registry.find_model("paper", streaming)
    content = path.read_bytes()
    for damage in (content[:-1], bytes([content[0] ^ 1]) + content[1:], b""):
        path.write_bytes(damage)
        assert registry.find_model("paper", streaming) == path and path.read_bytes() == content
    assert len(server.asked) == 1
    (kept / "DVMSR.pth").write_bytes(b"damaged")
    assert registry.find_model("paper", streaming) == path
    assert (kept / "DVMSR.pth").read_bytes() == server.content and len(server.asked) == 2


@pytest.mark.parametrize("left", [None, b"damaged"])
def test_offline_without_the_file(
    server: FileServer, kept: Path, monkeypatch: pytest.MonkeyPatch, left: bytes | None
) -> None:
    monkeypatch.setenv(offline.VARIABLE, "1")
    if left is not None:
        kept.mkdir(parents=True)
        (kept / "DVMSR.pth").write_bytes(left)
    with pytest.raises(MissingComponentError) as caught:
        registry.find_model("paper")
    assert str(caught.value) == (
        f"the weights of the paper's student are not in {kept / 'DVMSR.pth'}, and offline they are "
        f"not fetched; run it once without --offline and DVMSR_OFFLINE, or put "
        f"{server.address}/zoo/DVMSR.pth there"
    )
    assert not server.asked
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "DVMSR.pth").write_bytes(server.content)
    assert registry.find_checkpoint("paper") == kept / "DVMSR.pth"
    assert registry.find_model("paper").parent == kept


def test_another_file_is_never_run(server: FileServer, kept: Path, photo: Path, run: Run) -> None:
    server.content = server.content[:-1] + b"x"
    code, out, err = run("dvmsr-infer", photo, "--model", "paper")
    assert code == 1 and not out and not Path("photo_x4.png").exists()
    assert "another file than expected" in err.splitlines()[-1]
    assert [path.name for path in kept.iterdir()] == [".lock"]


def test_the_cache_may_be_read_only(
    server: FileServer, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = registry.find_model("paper")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it writes")

    monkeypatch.setattr("dvmsr.utils.atomic.replacing", refuse)
    assert registry.find_model("paper") == path


COMMANDS = {
    "infer": "dvmsr-infer photo.png --model {}",
    "eval": "dvmsr eval photos --model {} --scale 4",
    "compare": "dvmsr compare photos/a.png --model {} --html page.html",
    "against": "dvmsr compare photos/a.png --against bicubic,{} --html page.html",
    "info": "dvmsr info {}",
    "lam": "dvmsr lam photo.png --window 16,16 --steps 1 --model {}",
    "parity": "dvmsr parity {} student --limits max-abs=9",
    "bench": "dvmsr bench {}:portable --size 8x8 --rounds 1 --warmup 0",
    "onnx": "dvmsr-export onnx {} --no-verify",
    "init": "dvmsr train --init {} --data photos -o run --steps 1 --patch 8 --batch 1",
    "distill": "dvmsr distill --teacher {} --data photos -o run --steps 1 --patch 8 --batch 1",
    "trt": "dvmsr-export trt {} --target rtx --fp16",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_asks_for_it(kept: Path, photo: Path, run: Run, name: str) -> None:
    before = set(Path().iterdir())
    code, out, err = run(*COMMANDS[name].format("paper-ntire").split(), "--offline")
    assert code == 4 and not out
    assert f"not in {kept / 'team07_DVMSR.pth'}, and offline" in err.splitlines()[-1]
    assert set(Path().iterdir()) == before


@requires_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "trt"])
def test_every_command_takes_it(kept: Path, photo: Path, run: Run, name: str) -> None:
    kept.mkdir(parents=True)
    shutil.copy(official_weights("dvmsr_ntire"), kept / "team07_DVMSR.pth")
    code, _, err = run(*COMMANDS[name].format("paper-ntire").split(), "--offline")
    assert code == 0, err


INFER = """
import sys
from dataclasses import replace
from dvmsr.weights import paper
paper.ADDRESS = sys.argv.pop(1)
size, sha256 = int(sys.argv.pop(1)), sys.argv.pop(1)
paper.FILES["paper"] = replace(paper.FILES["paper"], size=size, sha256=sha256)
from dvmsr.runtime.cli import main
main()
"""


def start(photo: Path, output: str, before: str = "") -> subprocess.Popen[str]:
    """`dvmsr-infer --model paper` in a process of its own."""
    published = paper.FILES["paper"]
    words = [paper.ADDRESS, published.size, published.sha256, photo, "-o", output]
    words += ["--model", "paper"]
    return subprocess.Popen(
        [sys.executable, "-c", before + INFER, *map(str, words)], stderr=subprocess.PIPE, text=True
    )


def finish(started: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it said on stderr."""
    with started as process:
        _, err = process.communicate(timeout=LIMIT)
    return process.returncode, err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_an_interrupt_keeps_what_has_arrived(server: FileServer, kept: Path, photo: Path) -> None:
    server.stops_after = 500_000
    part = kept / "DVMSR.pth.part"
    with start(photo, "out.png") as process:
        wait_until(lambda: part.exists() and part.stat().st_size >= 400_000)
        process.send_signal(signal.SIGINT)
        code, err = finish(process)
    assert code == 130 and err.endswith("interrupted\n")
    assert "Traceback" not in err and not Path("out.png").exists()
    assert {path.name for path in kept.iterdir()} == {".lock", part.name}
    arrived = part.stat().st_size
    code, err = finish(start(photo, "out.png"))
    assert code == 0, err
    assert server.asked[1][1] == f"bytes={arrived}-" and not part.exists()


@pytest.mark.slow
def test_two_processes_at_once(server: FileServer, kept: Path, photo: Path) -> None:
    server.stops_after = 500_000
    with start(photo, "1.png") as first:
        assert server.stopped.wait(LIMIT)
        with start(photo, "2.png") as second:
            assert second.stderr is not None
            wait_until(lambda: "another process" in second.stderr.readline())
            server.go_on.set()
            assert first.wait(LIMIT) == second.wait(LIMIT) == 0
    assert len(server.asked) == 1
    assert Path("1.png").read_bytes() == Path("2.png").read_bytes()
