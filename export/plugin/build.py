"""Compiles the TensorRT plugin from the sources that are installed with dvmsr, once per machine.

Needs nvcc, CMake and a C++ compiler. The first two also come from the package index, in the extra
`plugin`; a GPU or an installed TensorRT is not needed.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.kernels import nvcc
from dvmsr.runtime.backends.trt import plugin_library
from dvmsr.runtime.backends.trt.plugin_library import DESCRIPTION, PluginLibrary
from dvmsr.utils import signals
from dvmsr.utils.console import notice, stderr_console
from dvmsr.utils.locks import hold
from dvmsr.utils.threads import cores

ARCHITECTURES = ("75-real", "80-real", "86-real", "89-real", "90-real", "100-real", "120")
"""Machine code for every generation that has Tensor cores, PTX of the last for those to come."""
FETCHED_MAJORS = (10, 11)
"""The major versions of the headers that CMake can download."""


def ensure(
    major: int, compute_capabilities: Sequence[str], preferred: str | None = None
) -> PluginLibrary:
    """A plugin for that TensorRT and those GPUs, compiled if there is none yet.

    Args:
        compute_capabilities: such as `8.9`; one of a GPU that is not listed may not run it.
        preferred: SHA-256 of the library to take if it is there; else the newest.

    Raises:
        MissingComponentError: if it cannot be compiled here, with the remedy.
        DvmsrError: if compiling fails.
    """
    for sha256 in dict.fromkeys((preferred, None)):
        library = plugin_library.find(major, sha256=sha256)
        if library and all(library.runs_on(capability) for capability in compute_capabilities):
            return library
    return build(major, [capability.replace(".", "") for capability in compute_capabilities])


def build(
    major: int,
    architectures: Sequence[str] = ARCHITECTURES,
    tensorrt_root: Path | None = None,
) -> PluginLibrary:
    """Compile the plugin into the user's cache, unless the same is there already.

    Args:
        major: of the TensorRT that it is for; TensorRT for RTX takes the one for 10.
        architectures: as `89`, `8.9`, `89-real` (no PTX) or `89-virtual` (PTX only).
        tensorrt_root: folder of TensorRT with its headers; by default the environment's
            TENSORRT_ROOT, the system's, or downloaded ones: for TensorRT 10 from a wheel, for 11
            from NVIDIA's public repository.

    Raises:
        UsageError: if an architecture is none, or none that nvcc knows.
        MissingComponentError: if a compiler, CMake or the headers are missing, with the remedy.
        DvmsrError: if compiling fails.
    """
    architectures = [parse_architecture(text) for text in architectures]
    compiler = nvcc.find()
    cmake = _find_tool("cmake", "CMake")
    sources_sha256 = plugin_library.sources_sha256()
    inputs = [sources_sha256, str(major), str(compiler), *architectures]
    folder = plugin_library.cache_folder() / hashlib.sha256(" ".join(inputs).encode()).hexdigest()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / ".lock").open("w")
    except OSError as error:
        raise _unusable(folder.parent, error) from None
    with lock:
        hold(lock, lambda: notice("another process compiles the plugin; waiting for it"))
        ready = plugin_library.read_description(folder / DESCRIPTION)
        if ready:
            return ready
        notice(
            f"compiling the plugin for TensorRT {major} and CUDA architectures "
            f"{', '.join(architectures)} with nvcc {compiler}, once; it takes minutes"
        )
        started = time.monotonic()
        try:
            with signals.temporary_folder(folder.parent) as temporary:
                _compile(major, architectures, tensorrt_root, compiler, cmake, temporary)
                names = [f"libdvmsr_trt{major}.so", f"libdvmsr_trt{major}_register.so"]
                digest = plugin_library.sha256(temporary / names[0])
                pure, registering = (str(folder / name) for name in names)
                library = PluginLibrary(
                    pure,
                    registering,
                    major,
                    digest,
                    tuple(architectures),
                    sources_sha256,
                    str(compiler),
                )
                (temporary / DESCRIPTION).write_text(json.dumps(library.to_dict(), indent=2) + "\n")
                shutil.rmtree(folder, ignore_errors=True)
                temporary.replace(folder)
        except OSError as error:
            raise _unusable(folder.parent, error) from None
        notice(f"compiled {pure} in {time.monotonic() - started:.0f} s")
    return library


def major_of(tensorrt_root: Path) -> int:
    """The major version of the headers below a folder of TensorRT.

    Raises:
        MissingComponentError: if there are none.
    """
    for include in ("include", "include/x86_64-linux-gnu", "include/aarch64-linux-gnu", "."):
        header = tensorrt_root / include / "NvInferVersion.h"
        if header.is_file():
            pattern = r"define (?:TRT_MAJOR_ENTERPRISE|NV_TENSORRT_MAJOR) +(\d+)"
            match = re.search(pattern, header.read_text(errors="replace"))
            if match:
                return int(match[1])
    raise MissingComponentError(
        f"{tensorrt_root} has no TensorRT headers (include/NvInferVersion.h); name the folder of "
        "TensorRT with --tensorrt-root"
    )


def parse_architecture(text: str) -> str:
    """`8.9` -> `89`; `89`, `89-real` and `89-virtual` stay.

    Raises:
        UsageError: for anything else.
    """
    match = re.fullmatch(r"(\d{1,2})\.?(\d)(-real|-virtual)?", text)
    if not match:
        raise UsageError(
            f"{text!r} is no CUDA architecture; name a compute capability, such as 8.9"
        )
    return f"{match[1]}{match[2]}{match[3] or ''}"


def _find_tool(name: str, title: str) -> str:
    """On the PATH, or in the folder of this Python, where pip installs programs."""
    folders = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    found = shutil.which(name, path=folders)
    if not found:
        raise MissingComponentError(
            f'compiling the plugin needs {title}; pip install "dvmsr[plugin]"'
        )
    return found


def _compile(
    major: int,
    architectures: Sequence[str],
    tensorrt_root: Path | None,
    compiler: nvcc.Nvcc,
    cmake: str,
    folder: Path,
) -> None:
    """Put both libraries into the folder."""
    settings = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CUDA_COMPILER": compiler.path,
        "CMAKE_CUDA_ARCHITECTURES": ";".join(architectures),
        "CMAKE_LIBRARY_OUTPUT_DIRECTORY": folder,
        "DVMSR_FETCH_TENSORRT_HEADERS": str(major) if major in FETCHED_MAJORS else "OFF",
        "Python3_EXECUTABLE": sys.executable,
    }
    root = tensorrt_root or os.environ.get("TENSORRT_ROOT")
    if root:
        settings["TENSORRT_ROOT"] = Path(root).resolve()
    with suppress(MissingComponentError):
        settings["CMAKE_MAKE_PROGRAM"] = _find_tool("ninja", "Ninja")
    generator = ["-G", "Ninja"] if "CMAKE_MAKE_PROGRAM" in settings else []
    source, objects = nvcc.sources() / "tensorrt", folder / "build"
    options = [f"-D{name}={value}" for name, value in settings.items()]
    environment = compiler.environment()
    configure = [cmake, "-S", str(source), "-B", str(objects), *generator, *options]
    log = _run(configure, environment, major)
    # More would not help: there are as many kernel files.
    jobs = str(min(8, cores()))
    log += _run([cmake, "--build", str(objects), "--parallel", jobs], environment, major, log)
    shutil.rmtree(objects)
    built = sorted(path.name for path in folder.glob("libdvmsr_trt*.so"))
    if f"libdvmsr_trt{major}.so" not in built:
        raise MissingComponentError(
            f"the headers that were found are not of TensorRT {major} (they made {built[0]}); "
            f"name the folder of TensorRT {major} with --tensorrt-root"
        )


def _run(command: list[str], environment: dict[str, str], major: int, log: str = "") -> str:
    """Run a step with its progress on the terminal, and return what it printed."""
    lines = []
    with (
        stderr_console().status("compiling the plugin") as status,
        signals.child(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if line.startswith("-- downloading "):
                notice(line.removeprefix("-- ").strip())
            step = re.match(r"\[[ \d/%]+\]", line)
            if step:
                status.update(f"compiling the plugin {step[0]}")
    signals.check()
    if process.returncode:
        raise _failure(log + "".join(lines), major)
    return "".join(lines)


def _failure(log: str, major: int) -> DvmsrError:
    said = " ".join(log.split())  # CMake breaks its lines
    if "headers were not found" in said:
        if major not in FETCHED_MAJORS:
            return MissingComponentError(
                f"compiling the plugin for TensorRT {major} needs its headers, and none were "
                "found; name with --tensorrt-root the folder of its SDK, or a copy of NVIDIA's "
                "repository TensorRT, which has them in include/"
            )
        return MissingComponentError(
            f"compiling the plugin needs the headers of TensorRT {major}, and none were found or "
            "could be downloaded; name the folder of TensorRT with --tensorrt-root, or install "
            "libnvinfer-headers-dev"
        )
    if altered := re.search(r"(\S+) has an unknown SHA-256", said):
        return DvmsrError(
            f"{altered[1]}, which was downloaded for TensorRT's headers, is not the file that "
            "dvmsr knows, and nothing of it was used; name the folder of TensorRT with "
            "--tensorrt-root, or install libnvinfer-headers-dev"
        )
    unknown = re.search(r"unsupported gpu architecture '\w+_(\w+)'", log, re.I)
    if unknown:
        return UsageError(
            f"nvcc does not know the CUDA architecture {unknown[1]}; name the compute capability "
            "of a GPU, such as 8.9, or use a newer nvcc"
        )
    path = plugin_library.cache_folder() / "failed.log"
    path.write_text(log)
    errors = [line.strip() for line in log.splitlines() if re.search(r"\berror\b", line, re.I)]
    reason = errors[0] if errors else "the compiler stopped"
    return DvmsrError(f"the plugin could not be compiled ({reason}); {path} has the whole log")


def _unusable(folder: Path, error: OSError) -> DvmsrError:
    return DvmsrError(
        f"{folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME to another place"
    )
