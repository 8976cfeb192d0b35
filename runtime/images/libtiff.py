"""What libtiff finds wrong with a file, which it would print on standard error without its name."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from PIL import _imaging

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
"""TIFFErrorHandler: module, format, and what goes into it."""
_thread = threading.local()


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Where libtiff, in this thread and in the block, found something wrong: in which of its
    functions, or file. It goes on nevertheless, if it can."""
    _listen()
    found: list[str] = []
    _thread.found = found
    try:
        yield found
    finally:
        _thread.found = None


def _note(module: bytes | None, *_: Any) -> None:
    found = getattr(_thread, "found", None)
    if found is not None:
        found.append((module or b"").decode("utf-8", "replace"))


@cache
def _listen() -> Any:
    """Have Pillow's libtiff call us; where it cannot be reached, it prints."""
    handler = _Handler(_note)
    try:
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(handler)
    except (AttributeError, OSError):
        return None
    return handler
