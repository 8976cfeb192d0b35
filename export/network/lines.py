"""Which line of a network's own code something came from."""

import contextlib
import os
import re
import traceback
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import onnx

_NOT_THE_NETWORK = ("torch", "onnxscript", "onnx_ir", "dvmsr")
"""Packages whose frames stand between a network's own."""


def line_of(node: onnx.NodeProto) -> str:
    """Of a node of `capture`; empty if it does not tell."""
    told = {entry.key: entry.value for entry in node.metadata_props}
    return last_line(told.get("pkg.torch.onnx.stack_trace", ""))


def line_in(trace: TracebackType | None) -> str:
    """The innermost in a traceback; empty if there is none."""
    return last_line("".join(traceback.format_tb(trace)))


def line_here() -> str:
    """The innermost that is being run."""
    return last_line("".join(traceback.format_stack()))


def last_line(stack: str) -> str:
    """The innermost in a stack as Python prints it."""
    places = re.findall(r'File "([^"]+)", line (\d+)', stack)
    own = [place for place in places if not place[0].startswith(_between())]
    return f"{own[-1][0]}, line {own[-1][1]}" if own else ""


@cache
def folder_of(package: str) -> str:
    """Where a package's files lie, with a separator at the end.

    Raises:
        ModuleNotFoundError: if there is none.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return f"{Path(spec.origin).parent}{os.sep}"


@cache
def _between() -> tuple[str, ...]:
    """How the files begin that are not the network's, wherever its own lie."""
    return (*map(folder_of, _NOT_THE_NETWORK), contextlib.__file__, "<frozen ")
