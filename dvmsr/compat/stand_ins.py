"""Puts the stand-ins where `import` finds them, and takes them away again."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from dvmsr.compat import cuda_device, triton_stub
from dvmsr.compat.table import PACKAGES, STAND_INS


class _StandIn(ModuleType):
    """A module with the names that the table gives it."""

    def __getattr__(self, name: str) -> object:
        raise AttributeError(_missing(self.__name__, name))


def _missing(module: str, name: str) -> str:
    return f"{module} has no {name} in dvmsr's stand-in; docs/compat.md lists what there is"


class _Finder(MetaPathFinder, Loader):
    """Finds the stand-ins, ahead of modules that are installed.

    Each counts as a package, so that `from module import name` asks here for the name that it lacks
    (CPython's own message would not say whose module it is).
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.startswith("torch."):
            triton_stub.remove()  # of which torch must see nothing
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        if fullname in STAND_INS:
            return ModuleSpec(fullname, self, origin="dvmsr.compat", is_package=True)
        module, _, name = fullname.rpartition(".")
        raise ModuleNotFoundError(_missing(module, name), name=module)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, "dvmsr's stand-in, see dvmsr.compat.")

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(STAND_INS[module.__name__])


_finder = _Finder()
_replaced: dict[str, ModuleType] = {}


def _take_modules() -> dict[str, ModuleType]:
    """Everything that is imported under the stand-ins' names, out of `sys.modules`."""
    names = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    return {name: sys.modules.pop(name) for name in names}


def install() -> None:
    """From now on, importing mamba-ssm, causal-conv1d or a `selective_scan_cuda*` module gives the
    stand-ins, in this process, also where the real ones are installed.

    What was imported from the real ones before remains with those who imported it. Besides,
    `torch.cuda.device` does nothing for a CPU's device, which it otherwise refuses, and a network
    may import triton where there is none: its kernels are refused when they are launched.
    """
    if _finder in sys.meta_path:
        return
    _replaced.update(_take_modules())
    sys.meta_path.insert(0, _finder)
    triton_stub.install()
    cuda_device.install()


def uninstall() -> None:
    """Undo `install`; modules that it replaced are what `import` gives again."""
    if _finder not in sys.meta_path:
        return
    sys.meta_path.remove(_finder)
    triton_stub.uninstall()
    cuda_device.uninstall()
    _take_modules()
    sys.modules.update(_replaced)
    _replaced.clear()


@contextmanager
def importing() -> Iterator[None]:
    """Around the import of a network: `install`, and afterwards nothing is left of the triton that
    it may have imported where there is none. The stand-ins stay."""
    install()
    try:
        yield
    finally:
        triton_stub.remove()
