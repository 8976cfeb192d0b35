"""Which TensorRT builds, and for which GPUs."""

from __future__ import annotations

import importlib.util

from dvmsr.errors import MissingComponentError, UsageError
from dvmsr.kernels import driver
from dvmsr.runtime.backends.trt import version
from dvmsr.runtime.backends.trt.engine_info import TARGETS

RTX_VERSION = "1.7.1"
"""Of TensorRT for RTX: how it finds plugins is undocumented, and was tried with this one."""
RTX_CAPABILITIES = ("8.6", "8.9", "12.0")
"""GeForce RTX 30, 40 and 50."""
RTX_SUPPORTED = ("7.5", "8.0", *RTX_CAPABILITIES, "12.1")
RTX_PLUGIN_MAJOR = 10
"""TensorRT for RTX takes the plugin that is compiled for this TensorRT."""
OLDEST = {"fp16": "7.5", "bf16": "8.0"}
"""The first compute capability with Tensor cores for a type, of those that TensorRT supports."""
INSTALL = {"gpu": 'pip install "dvmsr[gpu]"', "rtx": 'pip install "dvmsr[rtx]"'}


def require_tensorrt(target: str) -> str:
    """The version of the library.

    Raises:
        MissingComponentError: if it is not installed, or of a version that was not tried.
    """
    found = version.installed_version(target)
    missing = [name for name in ("polygraphy", "onnx") if importlib.util.find_spec(name) is None]
    if found is None or missing:
        what = TARGETS[target] if found is None else " and ".join(missing)
        other = ""
        if target == "gpu" and found is None:
            other = f", or build for RTX cards: {INSTALL['rtx']} and add --target rtx"
        raise MissingComponentError(f"{what} is not installed; {INSTALL[target]}{other}")
    if target == "rtx" and not found.startswith(f"{RTX_VERSION}."):
        raise MissingComponentError(
            f"TensorRT for RTX {found} is installed, but plugins are known to work with "
            f"{RTX_VERSION} alone; {INSTALL['rtx']}"
        )
    return found


def plugin_major(target: str, tensorrt: str) -> int:
    """The major version of the TensorRT that the plugin must be compiled for."""
    return int(tensorrt.partition(".")[0]) if target == "gpu" else RTX_PLUGIN_MAJOR


def capabilities(
    target: str, wanted: tuple[str, ...], device: driver.Gpu | None
) -> tuple[str, ...]:
    """Compute capabilities of the GPUs that the engine is for.

    Raises:
        MissingComponentError: if the target is this machine's GPU and there is none.
    """
    if target == "rtx":
        return tuple(dict.fromkeys(wanted)) or RTX_CAPABILITIES
    if device is None:
        raise MissingComponentError(
            "TensorRT builds on the GPU that the engine is for, and there is none that CUDA can "
            "use; go to a machine with one, or build for RTX cards with --target rtx"
        )
    return (device.compute_capability,)


def check_precision(precision: str, capabilities: tuple[str, ...]) -> None:
    """Whether these GPUs compute in it.

    Raises:
        UsageError: if one does not.
    """
    oldest = OLDEST.get(precision, "0.0")
    for capability in capabilities:
        if tuple(map(int, capability.split("."))) < tuple(map(int, oldest.split("."))):
            raise UsageError(
                f"compute capability {capability} has no {precision}, which begins with {oldest}; "
                "choose another precision"
            )
