"""What figures were measured on."""

import platform
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import dvmsr
from dvmsr.errors import MissingComponentError
from dvmsr.kernels import cpu, driver
from dvmsr.runtime.backends.trt.version import PACKAGES as TENSORRT
from dvmsr.utils.threads import cores

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "torch", *chain(*TENSORRT.values()), "numpy")


def describe() -> dict[str, Any]:
    """Processor, GPU, system and versions, JSON-ready."""
    return {
        "processor": _processor(),
        "processors_usable": cores(),
        "isa": _isa(),
        "gpu": asdict(found) if (found := driver.first()) else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "dvmsr": dvmsr.__version__,
        **_versions(),
    }


def _isa() -> str | None:
    """The instruction set of the native operators; None without them."""
    try:
        return cpu.isa()
    except MissingComponentError:
        return None


def _versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
