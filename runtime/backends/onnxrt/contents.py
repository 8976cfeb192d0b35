"""What is in an ONNX file of any kind; imports the package onnx."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx

from dvmsr.errors import IncompatibleModelError, summary
from dvmsr.kernels.cpu import SCAN_ARGUMENTS
from dvmsr.runtime.backends.onnxrt import composed
from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN
from dvmsr.utils.paths import check_input, unreadable

_FRACTIONS = {
    *(onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16),
    *(onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE),
}
_Sizes = list[int | str]
_Form = tuple[tuple[str, Any], ...]


def read_contents(path: Path) -> dict[str, Any]:
    """Inputs, outputs, operators and weights, JSON-ready; weights in files of their own are not
    read.

    `scans` has an entry per form, those inside mixers included: how often it is there, the channels
    D, states N and groups G (a name where the size may change, None where the file does not tell),
    whether there is a `gate`, and whether tensors are `channel_major`.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it cannot be read.
        IncompatibleModelError: if it is no ONNX file.
    """
    check_input(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # the package's own have no common base
        raise IncompatibleModelError(
            f"{path} is no ONNX file or damaged ({summary(error)}); export it again"
        ) from None
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    nodes = list(_nodes(graph.node))
    sizes = {value.name: _sizes(value) for value in (*graph.input, *graph.value_info)}
    sizes |= {name: list(weight.dims) for name, weight in weights.items()}
    scans = Counter(_SCANS[name](node, sizes) for node in nodes if (name := _name(node)) in _SCANS)
    return {
        "inputs": {v.name: _port(v) for v in graph.input if v.name not in weights},
        "outputs": {v.name: _port(v) for v in graph.output},
        "nodes": dict(Counter(map(_name, nodes)).most_common()),
        "scans": [{"count": count, **dict(form)} for form, count in scans.most_common()],
        "parameters": sum(
            math.prod(weight.dims) for weight in graph.initializer if weight.data_type in _FRACTIONS
        ),
        "bytes": path.stat().st_size,
        "opsets": {entry.domain or "onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """All, those in branches and loops too."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _name(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _of_scan(node: onnx.NodeProto, sizes: dict[str, _Sizes]) -> _Form:
    given = dict(zip(SCAN_ARGUMENTS.split(), node.input, strict=False))
    channel_major = any(a.name == "channel_major" and a.i for a in node.attribute)
    _, *groups, _ = _axes(sizes.get(given.get("B", "")), 4)
    G, gate = groups[0 if channel_major else 1], bool(given.get("z"))
    return *_sizes_of(given, sizes), ("G", G), ("gate", gate), ("channel_major", channel_major)


def _of_mixer(node: onnx.NodeProto, sizes: dict[str, _Sizes]) -> _Form:
    return (
        *_sizes_of(composed.given(node), sizes),
        ("G", 1),
        ("gate", True),
        ("channel_major", False),
    )


_SCANS = {f"{DOMAIN}.SelectiveScan": _of_scan, f"{DOMAIN}.{composed.MIXER}": _of_mixer}
"""The form of the scan in a node, by operator."""


def _sizes_of(given: composed.Given, sizes: dict[str, _Sizes]) -> _Form:
    channels, states = _axes(sizes.get(given.get("A", "")), 2)
    return ("D", channels), ("N", states)


def _axes(sizes: _Sizes | None, count: int) -> list[int | str | None]:
    return [*sizes] if sizes is not None and len(sizes) == count else [None] * count


def _sizes(value: onnx.ValueInfoProto) -> _Sizes:
    return [
        size.dim_value if size.HasField("dim_value") else size.dim_param or "?"
        for size in value.type.tensor_type.shape.dim
    ]


def _port(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type.elem_type
    dtype = onnx.TensorProto.DataType.Name(kind).lower() if kind else None
    shape = _sizes(value) if value.type.tensor_type.HasField("shape") else None
    return {"dtype": _NUMPY.get(dtype or "", dtype), "shape": shape}


_NUMPY = {"float": "float32", "double": "float64"}
"""What NumPy calls otherwise."""
