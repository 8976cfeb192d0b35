"""Compiles libdvmsr_cuda for a GPU, once, into the user's cache.

The library is made by nvcc from `plugins/cuda` and `plugins/cuda_library`, which are installed with
dvmsr, for the architectures that are asked for, by default that of the machine's GPU. One that was
compiled elsewhere is named by the environment variable DVMSR_CUDA_LIBRARY; to run, it needs a
driver and nothing of the CUDA toolkit.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.kernels import driver, nvcc
from dvmsr.utils import cache, signals
from dvmsr.utils.console import notice
from dvmsr.utils.locks import hold
from dvmsr.utils.threads import cores

ENVIRONMENT = "DVMSR_CUDA_LIBRARY"
NAME = "libdvmsr_cuda.so"
FOLDERS = ("cuda", "cuda_library", "ort")
"""Of `plugins/`: what the library is made of."""

_FLAGS = ("-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", "--cudart=static")


def require() -> Path:
    """The library for this machine's GPU, compiled if there is none yet.

    Raises:
        MissingComponentError: if there is no GPU, or no compiler.
        DvmsrError: if compiling fails.
    """
    return find() or build([_this_gpu()])


def find() -> Path | None:
    """The library for this machine's GPU, if it is there already.

    Raises:
        MissingComponentError: if the environment names a file that does not exist.
    """
    if named := os.environ.get(ENVIRONMENT):
        path = Path(named)
        if not path.is_file():
            raise MissingComponentError(
                f"{ENVIRONMENT} names {path}, which is no file; "
                "build one with `dvmsr-export cuda-path --build`"
            )
        return path
    device = driver.first()
    if device is None:
        return None
    path = cache_path([device.compute_capability])
    return path if path.is_file() else None


def build(architectures: Sequence[str]) -> Path:
    """Compile the library, unless that was done before; it takes about a minute per architecture.
    Of several processes one does, and the others wait; where it fails or dies, the next one tries.

    Args:
        architectures: compute capabilities such as `8.9`, each for machine code of its own; of the
            highest there is PTX, too, for GPUs to come.

    Raises:
        UsageError: if an architecture is none.
        MissingComponentError: if there is no compiler, or a too old one.
        DvmsrError: if compiling fails.
    """
    codes = _code_options(architectures)
    target = cache_path(architectures)
    if target.is_file():
        return target
    compiler = nvcc.find()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".lock").open("w") as lock:
            hold(lock, lambda: notice("another process compiles the CUDA kernels; waiting for it"))
            if not target.is_file():
                notice(
                    f"compiling the CUDA kernels for compute capability {', '.join(architectures)} "
                    f"with nvcc {compiler}, once; it takes minutes"
                )
                _compile(compiler, codes, target)
    except OSError as error:
        raise DvmsrError(
            f"{target.parent} cannot be written ({error.strerror}); "
            "set XDG_CACHE_HOME to another place"
        ) from None
    return target


def units() -> list[Path]:
    """The files that nvcc compiles."""
    root = nvcc.sources()
    patterns = ("cuda/*.cu", "cuda_library/*.cu", "ort/*.cpp")
    found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return [path for path in found if not path.name.startswith("cpu_")]


def cache_path(architectures: Sequence[str]) -> Path:
    """Where the library for these architectures lies in the cache, there or not."""
    digest = hashlib.sha256(" ".join((*_FLAGS, *sorted(architectures))).encode())
    for name in FOLDERS:
        for file in sorted((nvcc.sources() / name).iterdir()):
            digest.update(f"{name}/{file.name}\0".encode() + file.read_bytes())
    return cache.folder("cuda") / digest.hexdigest()[:16] / NAME


def _this_gpu() -> str:
    device = driver.first()
    if device is None:
        raise MissingComponentError(
            "there is no NVIDIA GPU that CUDA can use; install the driver for one"
        )
    return device.compute_capability


def _code_options(architectures: Sequence[str]) -> list[str]:
    numbers = []
    for text in architectures:
        match = re.fullmatch(r"(\d{1,2})\.(\d)", text)
        if not match:
            raise UsageError(f"{text!r} is no compute capability; name one such as 8.9")
        numbers.append((int(match[1]), int(match[2])))
    codes = [f"-gencode=arch=compute_{a}{b},code=sm_{a}{b}" for a, b in sorted(set(numbers))]
    a, b = max(numbers)
    return [*codes, f"-gencode=arch=compute_{a}{b},code=compute_{a}{b}"]


def _compile(compiler: nvcc.Nvcc, codes: Sequence[str], target: Path) -> None:
    """Put the library there, whole."""
    root = nvcc.sources()
    command = [str(compiler.path), *_FLAGS, *codes]
    command.append(f"-L{compiler.path.resolve().parents[1] / 'lib'}")
    command += [f"-I{root / part}" for part in FOLDERS]
    with signals.temporary_folder(target.parent) as folder:

        def compile_one(source: Path) -> str:
            made = str(folder / f"{source.name}.o")
            _run([*command, "-c", str(source), "-o", made], target, compiler)
            return made

        with ThreadPoolExecutor(cores()) as pool:
            objects = list(pool.map(compile_one, units()))
        linked = folder / NAME
        _run([*command, "-shared", *objects, "-o", str(linked)], target, compiler)
        linked.replace(target)


def _run(command: Sequence[str], target: Path, compiler: nvcc.Nvcc) -> None:
    done = signals.run(command, env=compiler.environment())
    if done.returncode:
        log = target.with_name("failed.log")
        log.write_text(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        unknown = re.search(r"unsupported gpu architecture '\w+_(\w+)'", done.stderr, re.I)
        if unknown:
            raise UsageError(
                f"nvcc does not know the CUDA architecture {unknown[1]}; name the compute "
                "capability of a GPU, such as 8.9, or use a newer nvcc"
            )
        errors = re.findall(r".*\berror\b.*", done.stdout + done.stderr, re.I)
        reason = errors[0].strip() if errors else "the compiler stopped"
        raise DvmsrError(
            f"the CUDA kernels could not be compiled ({reason}); {log} has the whole log"
        )
