"""TensorRT's Python module, its messages, and the plugin in it; imported only when wanted."""

import importlib
import weakref
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError
from dvmsr.runtime.backends.trt import plugin_library
from dvmsr.runtime.backends.trt.engine_info import EngineInfo

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


@dataclass(frozen=True)
class _Loaded:
    """A plugin library that `load_plugin` registered."""

    sha256: str
    handle: Any
    users: weakref.WeakSet[Any]


_LOADED: weakref.WeakKeyDictionary[ModuleType, _Loaded] = weakref.WeakKeyDictionary()
"""By TensorRT's module."""


def load_plugin(trt: ModuleType, path: Path, info: EngineInfo, user: object) -> None:
    """Register the plugin that the engine `path` was built with.

    Args:
        user: the library stays registered while this lives.

    Raises:
        MissingComponentError: if it is not on this machine or does not load.
        IncompatibleModelError: if this machine's is another build, by the hash of its file.
        DvmsrError: if another engine in this process holds another build.
    """
    assert info.plugin is not None
    library = plugin_library.require(info.plugin.tensorrt_major, sha256=info.plugin.sha256)
    if library.sha256 != info.plugin.sha256:
        raise IncompatibleModelError(
            f"{path} was built with another plugin library (SHA-256 {info.plugin.sha256[:12]}..., "
            f"and {library.pure} has {library.sha256[:12]}...); build it again: {info.rebuild}"
        )
    loaded = _LOADED.get(trt)
    if loaded and loaded.sha256 != library.sha256 and not release_plugin(trt, info):
        raise DvmsrError(
            f"{path} needs another plugin library than an engine that is in use in this process; "
            f"use it in a process of its own, or build it again: {info.rebuild}"
        )
    registry = trt.get_plugin_registry()
    if not _is_registered(trt, info):
        handle = registry.load_library(library.pure)
        if not _is_registered(trt, info):
            remedy = "build it again with `dvmsr-export plugin-path --build`"
            if info.target == "rtx":
                remedy += (
                    ", and put the folder of a link libtensorrt_rtx.so to libtensorrt_rtx.so.1 on "
                    "LD_LIBRARY_PATH"
                )
            raise MissingComponentError(
                f"{library.pure} cannot be loaded by {trt.__name__} {trt.__version__}; {remedy}"
            )
        _LOADED[trt] = _Loaded(library.sha256, handle, weakref.WeakSet())
    if trt in _LOADED:
        _LOADED[trt].users.add(user)


def release_plugin(trt: ModuleType, info: EngineInfo) -> bool:
    """Deregister the library that `load_plugin` registered, unless something relies on it.

    Returns:
        Whether no plugin of the engine's version is registered now, by whomever.
    """
    loaded = _LOADED.get(trt)
    if loaded and not loaded.users:
        del _LOADED[trt]
        trt.get_plugin_registry().deregister_library(loaded.handle)
    return not _is_registered(trt, info)


def _is_registered(trt: ModuleType, info: EngineInfo) -> bool:
    assert info.plugin is not None
    registry = trt.get_plugin_registry()
    return registry.get_creator("SelectiveScan", info.plugin.version, "dvmsr") is not None
