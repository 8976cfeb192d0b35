"""Where the TensorRT plugin libraries of this machine are. `dvmsr.export.plugin.build` makes them.

A pair of libraries is compiled once per TensorRT major version, compiler and set of GPU
architectures, and kept in a folder of its own in the user's cache, with a `plugin.json` that tells
what it is. A pair compiled elsewhere is named by the environment variable DVMSR_TENSORRT_PLUGIN.
"""

import hashlib
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.kernels import nvcc
from dvmsr.utils import cache
from dvmsr.utils.json_text import parse

ENVIRONMENT = "DVMSR_TENSORRT_PLUGIN"
DESCRIPTION = "plugin.json"
FOLDERS = ("cuda", "tensorrt")
"""Of `plugins/`: the sources that the libraries are made of."""


@dataclass(frozen=True)
class PluginLibrary:
    """The plugin of one TensorRT major version."""

    pure: str
    """For `IPluginRegistry::loadLibrary`, `trtexec --dynamicPlugins`, and plans that embed it."""
    self_registering: str | None
    """For `trtexec --staticPlugins`, `polygraphy --plugins`, Triton and DeepStream."""
    tensorrt_major: int
    sha256: str
    """Of the pure library."""
    architectures: tuple[str, ...] | None
    """As in CMAKE_CUDA_ARCHITECTURES, such as `89-real` or `120`; None if not known."""
    sources_sha256: str | None
    """Of the sources that it was compiled from; None if not known."""
    nvcc: str | None
    """Version of the compiler; None if not known."""

    def runs_on(self, compute_capability: str) -> bool:
        """Whether it has code for a GPU of that compute capability, such as `8.9`."""
        return self.architectures is None or any(
            _covers(architecture, int(compute_capability.replace(".", "")))
            for architecture in self.architectures
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find(
    major: int, compute_capability: str | None = None, sha256: str | None = None
) -> PluginLibrary | None:
    """The plugin for that TensorRT, and for that GPU if one is given; None if there is none.

    The environment's comes first, then that of the given hash, then the newest that was compiled
    from the installed sources.

    Raises:
        MissingComponentError: if DVMSR_TENSORRT_PLUGIN names something else than the plugin.
        DvmsrError: if a file cannot be read.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        library = _from_environment(Path(named))
        if library.tensorrt_major != major:
            raise MissingComponentError(
                f"{named}, named by {ENVIRONMENT}, is for TensorRT {library.tensorrt_major}, not "
                f"{major}; name libdvmsr_trt{major}.so or unset the variable"
            )
        return library
    digest = sources_sha256()
    found = []
    for description in cache_folder().glob(f"*/{DESCRIPTION}"):
        library_ = read_description(description)
        if (
            library_
            and library_.tensorrt_major == major
            and library_.sources_sha256 == digest
            and (compute_capability is None or library_.runs_on(compute_capability))
        ):
            order = (library_.sha256 == sha256, description.stat().st_mtime, str(description))
            found.append((order, library_))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def require(
    major: int, compute_capability: str | None = None, sha256: str | None = None
) -> PluginLibrary:
    """As `find`, but the plugin must be there.

    Raises:
        MissingComponentError: if there is none, with the command that builds it.
    """
    library = find(major, compute_capability, sha256)
    if library is None:
        gpu = f" and compute capability {compute_capability}" if compute_capability else ""
        raise MissingComponentError(
            f"the plugin for TensorRT {major}{gpu} has not been built yet; build it with "
            f"`dvmsr-export plugin-path --build --tensorrt {major}`"
        )
    return library


def cache_folder() -> Path:
    """Where libraries are kept; it need not exist."""
    return cache.folder("tensorrt-plugin")


def sources_sha256() -> str:
    """Of the names and contents of all files that the libraries are made of."""
    digest = hashlib.sha256()
    for name in FOLDERS:
        for path in sorted((nvcc.sources() / name).iterdir()):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}/{path.name} {content}\n".encode())
    return digest.hexdigest()


def read_description(path: Path) -> PluginLibrary | None:
    """The libraries that a `plugin.json` describes; None if it is damaged, or they are gone, or the
    pure library is no longer the one described: its file is hashed."""
    try:
        library = PluginLibrary(**parse(path.read_bytes()))
        if library.architectures is not None:
            library = PluginLibrary(
                **{**library.to_dict(), "architectures": tuple(library.architectures)}
            )
        return library if sha256(Path(library.pure)) == library.sha256 else None
    except (DvmsrError, OSError, ValueError, TypeError):
        return None


def sha256(path: Path) -> str:
    """Of a file.

    Raises:
        DvmsrError: if it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DvmsrError(f"{path} cannot be read ({error.strerror})") from None


def _from_environment(path: Path) -> PluginLibrary:
    match = re.fullmatch(r"libdvmsr_trt(\d+)\.so", path.name)
    if not match or not path.is_file():
        raise MissingComponentError(
            f"{ENVIRONMENT} must name an existing libdvmsr_trt<major>.so, not {path}"
        )
    registering = path.with_name(f"{path.stem}_register.so")
    return PluginLibrary(
        pure=str(path),
        self_registering=str(registering) if registering.is_file() else None,
        tensorrt_major=int(match[1]),
        sha256=sha256(path),
        architectures=None,
        sources_sha256=None,
        nvcc=None,
    )


def _covers(architecture: str, capability: int) -> bool:
    """Machine code runs on later minor versions of its major one, PTX on everything later."""
    match = re.fullmatch(r"(\d+)(-real|-virtual)?", architecture)
    if not match:
        return False
    built, kind = int(match[1]), match[2]
    same_major = built // 10 == capability // 10 and kind != "-virtual"
    return built <= capability and (same_major or kind != "-real")
