"""What dvmsr's operators cannot compute: importable under its name, refused when it is called."""

from collections.abc import Callable
from typing import Any, NoReturn

from dvmsr.errors import IncompatibleModelError


class NotSupportedError(IncompatibleModelError):
    """A function, or a form of one, that the two operators do not cover."""


def refused_function(name: str, reason: str) -> Callable[..., NoReturn]:
    """A function that raises NotSupportedError, with its dotted name and the reason."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotSupportedError(f"{name} is not part of dvmsr's stand-in: {reason}")

    refuse.__name__ = refuse.__qualname__ = name.rpartition(".")[2]
    return refuse


def refused_class(name: str, reason: str) -> type:
    """A class to derive from and to ask `isinstance` about; making an object raises
    NotSupportedError."""
    return type(name.rpartition(".")[2], (), {"__init__": refused_function(name, reason)})
