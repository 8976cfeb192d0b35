"""Which line of a network's own code something came from."""

import re
import traceback
from types import TracebackType

import onnx

_NOT_THE_NETWORK = ("/torch/", "/onnxscript/", "/onnx_ir/", "/dvmsr/", "/contextlib.py")


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
    own = [place for place in places if not any(part in place[0] for part in _NOT_THE_NETWORK)]
    return f"{own[-1][0]}, line {own[-1][1]}" if own else ""
