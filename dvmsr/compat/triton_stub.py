"""Lets a network that defines Triton kernels be imported where there is no triton.

VMamba, for one, has kernels for GPUs beside PyTorch code for CPUs in one file. The stub is found
last, after any real triton, by import statements outside torch alone: torch takes a triton that it
finds for a real one.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any, NoReturn

from torch.utils import _triton

from dvmsr.errors import MissingComponentError

_PROBES = {"importlib.util", "importlib.metadata", "pkgutil"}
"""Who asks whether there is a triton, rather than to have it."""


class _Kernel:
    """What `@triton.jit` makes of a function: to be launched, which is refused."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__name__ = function.__name__

    def __getitem__(self, grid: object) -> Callable[..., NoReturn]:
        return self

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise MissingComponentError(
            f"{self.__name__} is a Triton kernel and triton is not installed; "
            "install it, or have the network take its PyTorch path"
        )


class _Name:
    """Anything else: `tl.constexpr`, `triton.Config(...)`."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> "_Name":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name()

    def __call__(self, *_: Any, **__: Any) -> "_Name":
        return _Name()


def _jit(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    return _jit if function is None else _Kernel(function)


def _decorator(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda kernel: kernel


class _Stub(ModuleType):
    def __getattr__(self, name: str) -> _Name:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name()


_TOP = {
    "__version__": "0.0.0",
    "jit": _jit,
    "autotune": _decorator,
    "heuristics": _decorator,
    "cdiv": lambda a, b: -(-a // b),
    "next_power_of_2": lambda n: 1 << max(0, n - 1).bit_length(),
}


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "triton" or not _wanted():
            return None
        return ModuleSpec(fullname, self, origin="dvmsr.compat", is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Stub(spec.name, "dvmsr's stub, see dvmsr.compat.")

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "triton":
            vars(module).update(_TOP)


def _wanted() -> bool:
    """Whether a module outside torch is importing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name in _PROBES or name.partition(".")[0] == "torch":
            return False
        if name != __name__ and not name.startswith("importlib"):
            return True
        frame = frame.f_back
    return True


_finder = _Finder()


def install() -> None:
    """Stand ready; a real triton comes first."""
    _triton.has_triton_package()  # torch remembers its answer
    sys.meta_path.append(_finder)


def remove() -> None:
    """Take what was imported out of `sys.modules`; who imported it keeps it."""
    for name in [n for n, module in sys.modules.items() if isinstance(module, _Stub)]:
        del sys.modules[name]


def uninstall() -> None:
    """Undo `install`."""
    sys.meta_path.remove(_finder)
    remove()
