"""dvmsr in an environment of its own, made without a network from this checkout and what
travels along.

Needs Python and pip alone. The environment sees the packages of the Python that makes it, which is
not changed.
"""

from __future__ import annotations

import os
import shlex
import site
import sys
import sysconfig
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BACKEND = "scikit-build-core"
PACKAGES = {
    "numpy": "numpy",
    "pillow": "PIL",
    "onnxruntime": "onnxruntime",
    "typer": "typer",
    "rich": "rich",
    "safetensors": "safetensors",
}
"""What dvmsr's own parts of the run import, by the package that brings it."""
NEEDED = ("numpy",)
"""Without these nothing runs."""
MAMBA = ("causal_conv1d", "mamba_ssm")
"""In the order in which they are built."""

Call = Callable[[list[str]], int]
"""Runs a command within the time there is, with its output in a log; tells its exit code."""


class InstallError(Exception):
    """What is missing, in one sentence."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the wheels for it."""

    folder: Path
    wheels: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self, call: Call) -> list[str]:
        """Make it, put dvmsr in it, and tell which of `PACKAGES` are not here. What an earlier run
        put in it, mamba-ssm above all, stays.

        Raises:
            InstallError: if pip, scikit-build-core or a package that dvmsr cannot do without is
                missing, or the installation fails.
        """
        if call([sys.executable, "-m", "pip", "--version"]):
            raise InstallError(f"pip is not here for {sys.executable}; install it")
        made = [sys.executable, "-m", "venv", "--without-pip", str(self.folder)]
        if call(made):
            raise InstallError(f"{sys.executable} makes no virtual environment; see the log")
        # Not --system-site-packages: where this Python is in an environment itself, that shows
        # the packages of the Python below it.
        seen = self._site_packages() / "packages-of-the-python-that-made-this.pth"
        seen.write_text("".join(f"{path}\n" for path in _packages()))
        if self._pip(call, BACKEND):
            raise InstallError(
                f"{BACKEND} is not here and not in {self.wheels}; fill that with carry.py first"
            )
        missing = [
            package
            for package, module in PACKAGES.items()
            if self._lacks(call, module) and self._pip(call, package)
        ]
        for package in NEEDED:
            if package in missing:
                raise InstallError(f"{package} is not here; install it")
        own = ["install", "--no-index", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
        own += ["--config-settings", f"build-dir={self.folder.parent / 'cmake'}"]
        if call([str(self.python), "-m", "pip", *own]):
            raise InstallError("dvmsr cannot be installed; see the log")
        native = "from dvmsr.kernels import cpu; cpu.load()"
        if call([str(self.python), "-c", native]):
            raise InstallError("dvmsr was installed without its native operators; see the log")
        return missing

    def _lacks(self, call: Call, module: str) -> int:
        code = f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({module!r}))"
        return call([str(self.python), "-c", code])

    def _pip(self, call: Call, package: str) -> int:
        found = ["install", "--no-index", "-f", str(self.wheels), package]  # from there alone
        return call([str(self.python), "-m", "pip", *found])

    def _site_packages(self) -> Path:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        return self.folder / "lib" / version / "site-packages"


def _packages() -> list[str]:
    """Where this Python's packages lie."""
    found = [*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    return [path for path in dict.fromkeys(found) if Path(path).is_dir()]


def mamba_sources(carry: Path) -> list[Path]:
    """The archives or folders of causal-conv1d's and mamba-ssm's sources, in the order to
    build them: those that the environment names (`CAUSAL_CONV1D`, `MAMBA_SSM`), else those
    that travel along."""
    found = []
    for name in MAMBA:
        named = os.environ.get(name.upper())
        paths = [Path(named).resolve()] if named else sorted(carry.glob(f"{name}-*.tar.gz"))
        found += paths[-1:]
    return found


def mamba_command(sources: list[Path], python: Path, work: Path, capability: str) -> list[str]:
    """Builds and installs mamba-ssm for this GPU alone; to be run in the background.

    Its setup asks nvcc for every architecture that there is, whatever it is told, so the nvcc
    that PyTorch is pointed at drops those and takes this GPU's.
    """
    number = capability.replace(".", "")
    nvcc = work / "nvcc-for-this-gpu"
    work.mkdir(parents=True, exist_ok=True)
    nvcc.write_text(_NVCC.format(number=number))
    nvcc.chmod(0o755)
    folders = []
    for source in sources:
        if source.is_file():
            with tarfile.open(source) as archive:
                archive.extractall(work / "mamba", filter="data")
            source = work / "mamba" / source.name.removesuffix(".tar.gz")
        folders.append(str(source))
    pip = [str(python), "-m", "pip", "install", "--no-index", "--no-build-isolation", "--no-deps"]
    lines = [shlex.join([*pip, folder]) for folder in folders]
    settings = [
        "MAMBA_FORCE_BUILD=TRUE",
        "MAMBA_KEEP_CUDA_BUILD=TRUE",
        "CAUSAL_CONV1D_FORCE_BUILD=TRUE",
        f"TORCH_CUDA_ARCH_LIST={capability}",
        f"PYTORCH_NVCC={nvcc}",
    ]
    # nice: what is measured, and dvmsr's own build, come first.
    return ["nice", "-n", "10", "env", *settings, "bash", "-c", " && ".join(lines)]


_NVCC = """\
#!/usr/bin/env bash
# nvcc without the architectures it is asked for: code for this machine's GPU alone.
found=$(command -v nvcc || echo "${{CUDA_HOME:-/usr/local/cuda}}/bin/nvcc")
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    -gencode) shift 2; continue ;;
    -gencode=*) shift; continue ;;
  esac
  arguments+=("$1")
  shift
done
exec "$found" "${{arguments[@]}}" -gencode arch=compute_{number},code=sm_{number}
"""
