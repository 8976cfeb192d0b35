"""Where the CUDA compiler is, and what it compiles on a user's machine.

A C++ compiler must be there; nvcc may come from the package index (extra `plugin`).
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import dvmsr
from dvmsr.errors import MissingComponentError

OLDEST = (12, 8)
"""The first that compiles for compute capability 12.0."""
REMEDY = 'pip install "dvmsr[plugin]", or install the CUDA toolkit'


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler."""

    path: Path
    version: tuple[int, ...]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    def environment(self) -> dict[str, str]:
        """To run it in: the package index's 13.0 does not tell the linker of its own libraries."""
        libraries = self.path.resolve().parents[1] / "lib"
        paths = [str(libraries), os.environ.get("LIBRARY_PATH", "")]
        return {**os.environ, "LIBRARY_PATH": ":".join(filter(None, paths))}


def find() -> Nvcc:
    """The environment's CUDACXX, that on the PATH, the CUDA toolkit's, or the package index's.

    Raises:
        MissingComponentError: if there is none that is recent enough, or no C++ compiler.
    """
    if not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")):
        raise MissingComponentError(
            "compiling CUDA kernels needs a C++ compiler; install one (Debian and Ubuntu: "
            "apt install g++)"
        )
    too_old = ""
    for path in _candidates():
        with suppress(OSError, subprocess.CalledProcessError):
            command = [str(path), "--version"]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            match = re.search(r"\bV(\d+)\.(\d+)\.(\d+)", output)
            if match:
                nvcc = Nvcc(path, tuple(map(int, match.groups())))
                if nvcc.version >= OLDEST:
                    return nvcc
                too_old = too_old or f" ({path} is {nvcc})"
    wanted = ".".join(map(str, OLDEST))
    raise MissingComponentError(
        f"compiling CUDA kernels needs nvcc {wanted} or later{too_old}; {REMEDY}"
    )


def sources() -> Path:
    """The folder `plugins` with the CUDA and TensorRT sources that were installed with dvmsr.

    Raises:
        MissingComponentError: if they are not there.
    """
    for folder in dvmsr.__path__:
        path = Path(folder) / "plugins"
        if (path / "cuda").is_dir():
            return path
    raise MissingComponentError("the sources of the CUDA kernels are missing; reinstall dvmsr")


def _candidates() -> Iterator[Path]:
    if "CUDACXX" in os.environ:
        yield Path(os.environ["CUDACXX"])
        return
    found = shutil.which("nvcc")
    if found:
        yield Path(found)
    for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if root:
            yield Path(root) / "bin" / "nvcc"
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from Path(folder).glob("cu*/bin/nvcc")
