"""Whether the nodes of dvmsr's operators in a file take and give what these do; imports the package
onnx."""

from pathlib import Path

import onnx

from dvmsr.errors import IncompatibleModelError
from dvmsr.kernels.cpu import CONV_ARGUMENTS, SCAN_ARGUMENTS
from dvmsr.runtime.backends.onnxrt.composed import COMPOSED, MIXER
from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN

_TAKEN: dict[str, tuple[str, ...]] = {
    "SelectiveScan": tuple(SCAN_ARGUMENTS.split()),
    "CausalConv1d": tuple(CONV_ARGUMENTS.split()),
    **{name: operator.arguments for name, operator in COMPOSED.items()},
}
_GIVEN = {
    "SelectiveScan": 2,
    "CausalConv1d": 2,
    **{name: len(operator.outputs) for name, operator in COMPOSED.items()},
}
_OPTIONAL = {
    "SelectiveScan": (("z",),),
    MIXER: (("in_proj_x", "in_proj_z"), ("norm_weight", "norm_bias"), ("out_proj",)),
}
"""What may be left off, together."""


def check_nodes(graph: onnx.GraphProto, path: Path) -> None:
    """Whether what reads the graph of that file finds all inputs and outputs of the operators.

    Raises:
        IncompatibleModelError: if not.
    """
    for node in graph.node:
        if node.domain == DOMAIN and node.op_type in _TAKEN and (wrong := _wrong(node)):
            raise IncompatibleModelError(
                f"{path} is damaged ({node.op_type} {node.name!r} {wrong}); export it again"
            )


def _wrong(node: onnx.NodeProto) -> str | None:
    arguments, outputs = _TAKEN[node.op_type], _GIVEN[node.op_type]
    if len(node.input) > len(arguments):
        return f"has {len(node.input)} inputs where there are {len(arguments)}"
    if len(node.output) != outputs or not all(node.output):
        return f"gives {sum(map(bool, node.output))} outputs where there are {outputs}"
    has = {name for name, value in zip(arguments, node.input, strict=False) if value}
    missing = {*arguments} - has
    for together in _OPTIONAL.get(node.op_type, ()):
        if not has & {*together}:
            missing -= {*together}
    return f"lacks {', '.join(sorted(missing))}" if missing else None
