"""TensorRT's Python module, its messages, and the plugin in it; imported only when wanted."""

import importlib
from collections import deque
from pathlib import Path
from types import ModuleType
from typing import Any

from dvmsr.errors import IncompatibleModelError, MissingComponentError
from dvmsr.runtime.backends.trt import plugin_library
from dvmsr.runtime.backends.trt.engine_file import EngineInfo

_MODULES = {
    "gpu": (("tensorrt",), "TensorRT", "pip install 'dvmsr[gpu]'"),
    "rtx": (
        ("tensorrt_rtx", "tensorrt_rtx_bindings"),
        "TensorRT for RTX",
        "pip install 'dvmsr[rtx]'",
    ),
}


def import_tensorrt(target: str) -> ModuleType:
    """`tensorrt` for the target `gpu`, or TensorRT for RTX's module for `rtx`.

    Raises:
        MissingComponentError: if it is not installed or does not load.
    """
    names, title, remedy = _MODULES[target]
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise MissingComponentError(f"{title} does not load ({reason}); {remedy}") from None
    raise MissingComponentError(f"{title} is not installed; {remedy}")


class Log:
    """Collects TensorRT's errors and warnings for the messages of exceptions."""

    messages: deque[str]

    def last(self) -> str:
        """The last one, or that there was none."""
        return self.messages[-1] if self.messages else "it gave no reason"

    @staticmethod
    def of(trt: ModuleType) -> Any:
        """A logger for that module, with the interface of this class."""

        class TensorRTLog(trt.ILogger, Log):  # type: ignore[name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.messages = deque(maxlen=20)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                    self.messages.append(message.strip())

        return TensorRTLog()


def load_plugin(trt: ModuleType, path: Path, info: EngineInfo) -> None:
    """Register the plugin that the engine `path` was built with.

    Raises:
        MissingComponentError: if it is not on this machine or does not load.
        IncompatibleModelError: if this machine's is another build, by the hash of its file.
    """
    assert info.plugin is not None
    library = plugin_library.require(info.plugin.tensorrt_major, sha256=info.plugin.sha256)
    if library.sha256 != info.plugin.sha256:
        raise IncompatibleModelError(
            f"{path} was built with another plugin library (SHA-256 {info.plugin.sha256[:12]}..., "
            f"and {library.pure} has {library.sha256[:12]}...); build it again: {info.rebuild}"
        )
    registry = trt.get_plugin_registry()
    creator = "SelectiveScan", info.plugin.version, "dvmsr"
    if registry.get_creator(*creator) is not None:
        return  # registered before, by this or another engine
    registry.load_library(library.pure)
    if registry.get_creator(*creator) is None:
        remedy = "build it again with `dvmsr-export plugin-path --build`"
        if info.target == "rtx":
            remedy += (
                ", and put the folder of a link libtensorrt_rtx.so to libtensorrt_rtx.so.1 on "
                "LD_LIBRARY_PATH"
            )
        raise MissingComponentError(
            f"{library.pure} cannot be loaded by {trt.__name__} {trt.__version__}; {remedy}"
        )
