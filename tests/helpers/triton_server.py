"""NVIDIA's Triton Inference Server on this machine, from the wheel nvidia-pytriton.

The wheel has the server and its Python backend, which returns empty tensors with NumPy 2: beside
the environment's packages it gets NumPy 1.26 from a folder of its own, `triton-numpy`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from processes import LIMIT, wait_until

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_NUMPY = Path(sys.prefix) / "triton-numpy"


def _wheel() -> Path | None:
    """The folder of the wheel's server."""
    found = find_spec("pytriton")
    return Path(found.origin).parent / "tritonserver" if found and found.origin else None


def skip_without_triton() -> None:
    """Skips the running test where the server cannot be started, saying why."""
    pytest.importorskip("tritonclient", reason="needs tritonclient: make test installs it")
    if _wheel() is None or not _NUMPY.is_dir():
        pytest.skip(
            "needs nvidia-pytriton and NumPy 1.26: make test installs them where both are there, "
            "for Python 3.10 to 3.12 on Linux and x86-64"
        )
    if not (_library_folder() / str(sysconfig.get_config_var("INSTSONAME"))).is_file():
        pytest.skip("needs Python as a shared library, which Triton's Python backend loads")


def _library_folder() -> Path:
    return Path(sysconfig.get_config_var("LIBDIR"))


@dataclass(frozen=True)
class Installation:
    """The server with what it needs of this environment."""

    program: Path
    backends: Path
    """Its folder of backends: Python alone."""
    python: Path
    """A virtual environment for what runs in it."""

    @classmethod
    def make(cls, folder: Path) -> Installation:
        """In an empty folder."""
        wheel = _wheel()
        assert wheel is not None
        backend = folder / "backends" / "python"
        shutil.copytree(wheel / "backends" / "python", backend)
        stub = wheel / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
        shutil.copy(stub, backend)
        python = folder / "python"
        venv.create(python, symlinks=True, with_pip=False)
        ours, own = sysconfig.get_path("purelib"), f"lib/python{_PYTHON}/site-packages"
        (python / own / "packages.pth").write_text(
            f"import sys, site; sys.path.insert(0, {str(_NUMPY)!r}); site.addsitedir({ours!r})\n"
        )
        return cls(wheel / "bin" / "tritonserver", folder / "backends", python)

    def environment(self) -> dict[str, str]:
        """Variables for the server."""
        libraries = self.program.parents[3] / "nvidia_pytriton.libs"
        return {
            **os.environ,
            "PATH": f"{self.python / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{libraries}{os.pathsep}{_library_folder()}",
        }


@dataclass(frozen=True)
class Server:
    """One that runs."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    metrics: str
    """Addresses, with ports."""
    log: Path

    def client(self, protocol: str) -> Any:
        """A client that speaks `http` or `grpc`."""
        import tritonclient.grpc
        import tritonclient.http

        if protocol == "grpc":
            return tritonclient.grpc.InferenceServerClient(self.grpc)
        return tritonclient.http.InferenceServerClient(self.http, network_timeout=LIMIT)

    def children(self) -> set[int]:
        """Process numbers of its stubs: one for each instance of a Python model."""
        task = Path(f"/proc/{self.process.pid}/task")
        return {
            int(child)
            for children in task.glob("*/children")
            for child in children.read_text().split()
        }

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.client("http").is_server_ready())
        except OSError:
            return False


@contextmanager
def triton_serving(
    installation: Installation, repository: Path, log: Path, *options: str
) -> Iterator[Server]:
    """A server on the loopback, ready, during the block."""
    http, grpc, metrics = (f"127.0.0.1:{port}" for port in _free_ports(3))
    words = [
        *(str(installation.program), f"--model-repository={repository}"),
        f"--backend-directory={installation.backends}",
    ]
    for kind, address in (("http", http), ("grpc", grpc), ("metrics", metrics)):
        host, port = address.split(":")
        words += [f"--{kind}-address={host}", f"--{kind}-port={port}"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*words, *options],
            env=installation.environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server = Server(process, http, grpc, metrics, log)
        try:
            wait_until(server.is_ready)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
