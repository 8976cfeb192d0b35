"""Settings that must be in place before torch starts its threads, and before a process that a test
starts imports onnxruntime by itself."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # no spinning beside other processes
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's `pytest &` ignores Ctrl-C, as would all processes that are to be interrupted here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


SLOW_FIXTURES = {"cuda_on_host", "browser"}
"""One is compiled first, the other started."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs one of these is slow, too."""
    for item in items:
        if isinstance(item, pytest.Function) and SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The ONNX file of one of `own_network.FACTORIES`, made when a test first asks for it."""
    from own_network import export_one

    folder = tmp_path_factory.mktemp("exported")
    return functools.cache(lambda name: export_one(name, folder / f"{name}.onnx"))


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `dvmsr` in this process: arguments -> exit code, stdout, stderr."""
    from dvmsr import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dvmsr", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        return int(exit.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def cuda_on_host(request: pytest.FixtureRequest) -> Path:
    """libdvmsr_cuda, compiled for the host against an emulated device."""
    from cuda_emulation import compile_for_host

    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("needs g++ to compile the CUDA kernels for the host")
    folder = Path(request.config.cache.mkdir("cuda-on-host"))
    return compile_for_host(compiler, folder, "-O1", "-fPIC", "-shared")


@pytest.fixture
def emulated_gpu(cuda_on_host: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Makes that library the one that dvmsr loads."""
    from dvmsr.kernels import cuda, cuda_build

    monkeypatch.setenv(cuda_build.ENVIRONMENT, str(cuda_on_host))
    cuda.load.cache_clear()
    yield cuda_on_host
    cuda.load.cache_clear()
