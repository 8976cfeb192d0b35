"""Every command, wherever it waits: the first signal ends it within five seconds."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clips import clip, gif_of_tiny_frames
from networks import random_network
from PIL import Image
from processes import LIMIT, wait_until
from small_model import CONFIG, random_pixels

from dvmsr import checkpoint
from dvmsr.export.onnx.export import export_onnx
from dvmsr.train.run.state import FILE_NAME, TrainState

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="sends signals"),
]

SOON = 5.0
"""Seconds."""
AT_ONCE = 2.0
"""Where nothing is half done that a signal would have to wait for."""
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}

HOLD = """
import {module} as module, sys
held = module.{name}
def holds(*arguments, **options):
    sys.stderr.write("ready\\n")  # a line at a time, whatever threads say it
    sys.stderr.flush()
    {what}
    return held(*arguments, **options)
module.{name} = holds
"""
SLEEP = "import time; time.sleep(120)"


def at(name: str, what: str = SLEEP) -> str:
    """Code that has a command say `ready` where it calls a function, and wait there."""
    module, _, function = name.partition(":")
    return HOLD.format(module=module, name=function, what=what)


LONG = """
import torch

def compute(x):
    return torch.linalg.svd(x).U

class Long(torch.nn.Module):
    def forward(self, x):
        return compute(x)

def long():
    return Long()
"""
"""A network whose one call takes minutes."""


@dataclass(frozen=True)
class Case:
    """A command, what it is made to wait for, and what may be left of it besides its input."""

    command: str
    hold: str
    """Run before the command."""
    main: str = "dvmsr.cli"
    left: tuple[str, ...] = ()
    """Names that begin so."""


ORT = "onnxruntime:InferenceSession.run"
INFER, EXPORT = "dvmsr.runtime.cli", "dvmsr.export.cli"
MODEL = "--model m.onnx --backend portable"
RUN = "--data photos --patch 4 --batch 1 --threads 1 --steps 100000 --log-every 1"

CASES = {
    "infer, in one long call of ONNX Runtime": Case(
        f"large.png {MODEL}", at(ORT, "pass"), INFER
    ),
    "infer, between strips": Case(
        "large.png --model streaming.onnx --strip 1", at(ORT, "pass"), INFER
    ),
    "infer, between pictures": Case(
        f"many -o out {MODEL}", at("dvmsr.runtime.infer.batch:describe", "pass"), INFER, ("out",)
    ),
    "infer, reading a picture": Case(
        f"small.png {MODEL}", at("dvmsr.runtime.infer.steps:read_picture"), INFER
    ),
    "infer, writing a picture": Case(f"small.png {MODEL}", at("os:fsync"), INFER),
    "infer, reading a GIF of very many frames": Case(
        f"frames.gif {MODEL}", at("PIL.GifImagePlugin:GifImageFile.seek", "pass"), INFER
    ),
    "infer, counting the frames of a GIF": Case(
        f"frames.gif {MODEL}", at("dvmsr.runtime.images.frames:numbers", "pass"), INFER
    ),
    "infer, standard input that does not end": Case(
        f"- -o out.png {MODEL}", at("dvmsr.runtime.infer.batch:run", "pass"), INFER
    ),
    "infer, a store that does not answer": Case(
        f"http://127.0.0.1:{{port}}/a.png -o out.png {MODEL}", "", INFER
    ),
    "infer, between frames of a video": Case(
        f"clip.mp4 {MODEL}", at("dvmsr.runtime.upscaler:Upscaler.__call__", "pass"), INFER,
    ),
    "infer, on Ray": Case(
        f"many -o out --ray local {MODEL}",
        at("dvmsr.runtime.infer.ray:Cluster.outcomes", "pass"), INFER, ("out",),
    ),
    "eval": Case("eval photos --model bicubic", at("dvmsr.eval.metrics:psnr_y")),
    "compare": Case(
        "compare small.png --html page.html --model m.safetensors",
        at("dvmsr.runtime.upscaler:Upscaler.__call__"),
    ),
    "info": Case("info m.safetensors", at("dvmsr.checkpoint:load")),
    "lam": Case(
        "lam small.png --window 4,4 --model m.safetensors -o map.png",
        at("dvmsr.lam.torch_module:TorchModule.gradient"),
    ),
    "parity": Case("parity m.safetensors m.onnx:portable", at(ORT)),
    "bench, in the process that is measured": Case(
        "bench m.onnx:portable --size 8x8", at("dvmsr.utils.signals:run", "pass")
    ),
    "bench, between rounds": Case(
        "bench m.onnx:portable --size 8x8 --rounds 1000000",
        at("dvmsr.runtime.bench.bench:interleave", "pass"),
    ),
    "parity, in one long call of PyTorch": Case(
        "parity nets:long nets:long --input 4000x4000", at("nets:compute", "pass")
    ),
    "bench of a factory, in the process that is measured": Case(
        "bench nets:long --input 4000x4000", at("dvmsr.utils.signals:run", "pass")
    ),
    "info of a factory": Case("info nets:long", at("nets:long")),
    "train, reading photographs": Case(
        f"train -o run {RUN}", at("dvmsr.train.data.photographs:load_pair")
    ),
    "train, between steps": Case(
        f"train -o run {RUN}", at("dvmsr.train.loop:Trainer._log", "pass"), left=("run",)
    ),
    "train, in a validation": Case(
        f"train -o run {RUN} --val held-out --validate-every 1",
        at("dvmsr.train.validate:psnr_y"), left=("run",),
    ),
    "train, compiling": Case(
        f"train -o run {RUN} --compile", at("dvmsr.train.loop:Trainer._train_step")
    ),
    "distill": Case(
        f"distill --teacher m.safetensors --scale 2 -o run {RUN}",
        at("dvmsr.train.loop:Trainer._log", "pass"), left=("run",),
    ),
    "export onnx": Case("onnx m.safetensors -o a.onnx", at(ORT), EXPORT),
    "export onnx, a network of others": Case(
        "onnx own:net --input 1x2 -o a.onnx", at("dvmsr.export.network.capture:replace_einsum"),
        EXPORT,
    ),
    "export onnx, comparing a network of others": Case(
        "onnx own:net --input 1x2 -o a.onnx", at(ORT), EXPORT
    ),
    "export trt": Case(
        "trt m.onnx --target rtx -o a.engine --no-plugin",
        at("dvmsr.utils.signals:child", "pass"), EXPORT,
    ),
    "export plugin-path, compiling": Case("plugin-path --build", "", EXPORT),
    "export cuda-path, compiling": Case(
        "cuda-path --build --arch 8.9", "", EXPORT
    ),
}  # fmt: skip


OPTIONAL = {"infer, on Ray": "ray", "export trt": "tensorrt_rtx_bindings"}
"""What cases need that is not there for every machine, so that `make test` goes on without it."""
NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in OPTIONAL and importlib.util.find_spec(OPTIONAL[name]) is None,
            reason=f"needs {OPTIONAL.get(name)} (extra ray or rtx), not installed",
        ),
    )
    for name in CASES
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands are given."""
    folder = tmp_path_factory.mktemp("inputs")
    network = random_network(CONFIG)
    checkpoint.save(network, folder / "m.safetensors")
    export_onnx(network, folder / "m.onnx", verify=False)
    export_onnx(network, folder / "streaming.onnx", streaming=True, verify=False)
    for name, side in (("small.png", 24), ("large.png", 2000)):
        Image.fromarray(random_pixels(side, side)).save(folder / name)
    for name, number in (("many", 3000), ("photos", 3), ("held-out", 2)):
        (folder / name).mkdir()
        for i in range(number):
            Image.fromarray(random_pixels(40 + i % 2, 40)).save(folder / name / f"{i}.png")
    (folder / "frames.gif").write_bytes(gif_of_tiny_frames(1_000_000))
    clip(folder / "clip.mp4", times=range(0, 40_000, 40))
    (folder / "own.py").write_text("import torch\ndef net(): return torch.nn.Linear(2, 2)\n")
    for tool in ("nvcc", "cmake"):
        write_compiler(folder / tool)
    (folder / "nets.py").write_text(LONG)
    return folder


def write_compiler(path: Path) -> None:
    """One that tells its version and otherwise never ends, nor does what it starts."""
    path.write_text(
        '#!/bin/sh\ncase "$*" in --version) echo "release 13.0, V13.0.88"; exit;; esac\n'
        'echo ready >"$STARTED"\nsleep 120 &\necho $! >>"$STARTED"\nwait\n'
    )
    path.chmod(0o755)


@pytest.fixture
def silent_server() -> Iterator[tuple[int, Callable[[], bool]]]:
    """A port whose server takes requests and answers none, and whether one has come."""
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connections = []
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return
                asked.set()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], asked.is_set
        server.shutdown(socket.SHUT_RDWR)


def start(
    case: Case, inputs: Path, folder: Path, port: int, asked: Callable[[], bool]
) -> subprocess.Popen[str]:
    """The command, once it waits."""
    for path in inputs.iterdir():
        (folder / path.name).symlink_to(path)
    started, temporary = folder.with_name("started"), folder.with_name("temporary")
    temporary.mkdir()
    environment = {
        **os.environ, "STARTED": str(started), "CUDACXX": str(inputs / "nvcc"),
        "PATH": f"{inputs}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(folder / "cache"),
        "TMPDIR": str(temporary), "RAY_TMPDIR": "/tmp", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    code = f"{case.hold}\nfrom {case.main} import main; main()"
    arguments = case.command.format(port=port).split()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, text=True, **pipes
    )
    assert process.stderr
    if case.hold:
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        said = []
        for line in process.stderr:
            said.append(line)
            if line == "ready\n":
                break
        timer.cancel()
        assert said and said[-1] == "ready\n", "".join(said)
    elif "{port}" in case.command:
        wait_until(lambda: asked() or process.poll() is not None)
    else:
        wait_until(lambda: started.exists() and len(started.read_text().split()) > 1)
    assert process.poll() is None, process.stderr.read()
    return process


@pytest.mark.parametrize("name", NAMES)
def test_the_first_signal_ends_every_command(
    name: str,
    inputs: Path,
    tmp_path: Path,
    silent_server: tuple[int, Callable[[], bool]],
) -> None:
    number = list(SIGNALS)[list(CASES).index(name) % len(SIGNALS)]
    folder = tmp_path / "here"
    folder.mkdir()
    process = start(CASES[name], inputs, folder, *silent_server)
    begun = time.monotonic()
    process.send_signal(getattr(signal, number))
    _, err = process.communicate(timeout=LIMIT)
    seconds = time.monotonic() - begun
    assert process.returncode == SIGNALS[number], err
    assert seconds < (AT_ONCE if "a network of others" in name else SOON)
    assert "Traceback" not in err
    assert err.endswith("interrupted\n") == (number == "SIGINT")
    left = {path.name for path in folder.iterdir()} - {path.name for path in inputs.iterdir()}
    assert all(path.startswith(("cache", *CASES[name].left)) for path in left), left
    assert not list(folder.rglob(".dvmsr-*"))
    assert not [path for path in (tmp_path / "temporary").iterdir() if "dvmsr" in path.name]
    children = (
        (tmp_path / "started").read_text().split()[1:] if (tmp_path / "started").exists() else ()
    )
    assert not [pid for pid in children if is_running(int(pid))]


@pytest.mark.parametrize("name", ["infer, writing a picture", "lam", "train, compiling"])
def test_a_second_signal_ends_at_once(
    name: str, inputs: Path, tmp_path: Path, silent_server: tuple[int, Callable[[], bool]]
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    process = start(CASES[name], inputs, folder, *silent_server)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)  # what comes sooner counts as the same
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)
    assert process.returncode == 143
    assert time.monotonic() - begun < 2
    assert not list(folder.rglob(".dvmsr-*"))


def is_running(pid: int) -> bool:
    """Whether there is a process of that number that is not dead, after a moment."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.01)
    return True


def test_a_step_too_long_to_wait_for_loses_nothing_before_it(
    inputs: Path, tmp_path: Path, silent_server: tuple[int, Callable[[], bool]]
) -> None:
    """The weights and averages that are saved are those that the step began with."""
    once_begun = (
        "import os, sys, time, torch\n"
        "held = torch.Tensor.backward\n"
        "def holds(*arguments, **options):\n"
        "    if os.path.exists('run/log.jsonl'):\n"
        "        print('ready', file=sys.stderr, flush=True)\n"
        "        time.sleep(120)\n"
        "    return held(*arguments, **options)\n"
        "torch.Tensor.backward = holds\n"
    )
    folder = tmp_path / "here"
    folder.mkdir()
    process = start(Case(f"train -o run {RUN}", once_begun), inputs, folder, *silent_server)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 143 and time.monotonic() - begun < SOON
    assert err.endswith("stopped after step 1; --resume continues run\n")
    assert TrainState.load(folder / "run" / FILE_NAME).step == 1
    assert not list(folder.rglob(".dvmsr-*"))
