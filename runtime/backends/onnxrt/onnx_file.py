"""What an exported ONNX file says about itself, read without onnx and without loading the graph.

Only the outermost fields of the file's ModelProto are decoded (protocol buffers wire format;
field numbers from onnx.proto3).
"""

import io
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dvmsr.config import DVMSRConfig
from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.utils import protobuf
from dvmsr.utils.paths import check_input, unreadable

DOMAIN = "dvmsr"
DOMAIN_VERSION = 1
ATTRIBUTES = {"plugin_version": "1", "plugin_namespace": "dvmsr"}
"""What TensorRT finds its plugin by; on every node."""

_GRAPH, _OPSET_IMPORT, _METADATA, _FUNCTIONS = 7, 8, 14, 25
_NODE, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 4, 5, 7
"""Of a graph and of a node."""
_ATTRIBUTE_NAME = 1
_WEIGHT, _WEIGHT_TYPE, _HALF = 5, 2, 10
"""Of a graph, of a weight, and the type's value in half precision."""
_MIXER, _SCAN, _SOFTPLUS = b"MambaMixer", b"SelectiveScan", b"delta_softplus"
"""The last: what every node of scan has said since it has groups and z is its last input."""
_REMEDY = "export one with `dvmsr-export onnx CHECKPOINT`"


class ForeignFileError(IncompatibleModelError):
    """A file in ONNX format that another program made."""


@dataclass(frozen=True)
class OnnxFacts:
    """What any ONNX file says of itself."""

    metadata: dict[str, str]
    opsets: dict[str, int]
    """Version by domain; that of the standard operators is empty."""
    has_operators: bool
    """Whether it holds dvmsr's operators."""
    has_mixers: bool
    """Whether mixers are among them, or only what these are made of."""
    has_bodies: bool
    """Whether operators are also there as functions in standard operators."""
    has_half: bool
    """Whether weights are in half precision."""
    former: bool
    """Whether a scan is in the operator's former form, without groups."""


@dataclass(frozen=True)
class OnnxHeader:
    """What the runtime needs to know of a file before it loads it."""

    config: DVMSRConfig
    precision: str
    """`fp32` or `fp16`: the type of input, output and activations."""
    has_operators: bool
    """Whether it holds dvmsr's operators, not what they do in standard operators alone."""
    has_mixers: bool
    """Whether mixers are among them, or only what these are made of."""
    has_bodies: bool
    """Whether the operators are also there as functions in standard operators."""
    streaming: bool
    """Whether it computes strips of rows (`dvmsr.export.onnx.streaming_graph`), no whole images."""
    metadata: dict[str, str]


def read_facts(path: Path) -> OnnxFacts:
    """What an ONNX file of any program says of itself.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it cannot be read.
        IncompatibleModelError: if it is no ONNX file.
    """
    check_input(path)
    metadata: dict[str, str] = {}
    opsets: dict[str, int] = {}
    has_graph = has_operators = has_mixers = has_bodies = has_half = former = False
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for field, value in protobuf.fields(file, size, frozenset({_METADATA, _OPSET_IMPORT})):
                has_graph |= field == _GRAPH
                has_bodies |= field == _FUNCTIONS
                if field == _GRAPH and isinstance(value, int):
                    operators, half = _graph(file, file.tell() + value)
                    has_half |= half
                    has_operators |= bool(operators)
                    has_mixers |= any(op == _MIXER for op, _ in operators)
                    former |= any(op == _SCAN and _SOFTPLUS not in names for op, names in operators)
                if field == _METADATA:
                    key, text = _entry(value)
                    metadata[key] = _text(text)
                elif field == _OPSET_IMPORT:
                    domain, version = _entry(value)
                    opsets[domain] = version if isinstance(version, int) else 0
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise IncompatibleModelError(f"{path} is no ONNX file or damaged; {_REMEDY}") from None
    if not has_graph:
        raise IncompatibleModelError(f"{path} is no ONNX file or damaged; {_REMEDY}")
    return OnnxFacts(metadata, opsets, has_operators, has_mixers, has_bodies, has_half, former)


def is_foreign(metadata: dict[str, str]) -> bool:
    """Whether a file with that metadata holds another network than DVMSR."""
    return "dvmsr.config" not in metadata


def read_header(path: Path) -> OnnxHeader:
    """Read and check the metadata of an exported file.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it cannot be read.
        ForeignFileError: if it is an ONNX file, but not ours.
        IncompatibleModelError: if it is no ONNX file, of a newer version, or its operators are in
            their former form.
    """
    facts = read_facts(path)
    metadata = facts.metadata
    if is_foreign(metadata) and "dvmsr.network" in metadata:
        raise ForeignFileError(
            f"{path} holds another network than DVMSR, {metadata['dvmsr.network']}; run it with "
            "dvmsr.runtime.open_model"
        )
    if is_foreign(metadata):
        raise ForeignFileError(f"{path} is an ONNX file of another program; {_REMEDY}")
    check_operators(path, facts)
    try:
        config = DVMSRConfig.from_json(metadata["dvmsr.config"])
    except UsageError as error:
        raise IncompatibleModelError(f"{path} cannot be used: {error}; {_REMEDY}") from None
    precision, streaming = metadata.get("dvmsr.precision", "fp32"), "dvmsr.streaming" in metadata
    return OnnxHeader(
        *(config, precision, facts.has_operators, facts.has_mixers, facts.has_bodies, streaming),
        metadata,
    )


def check_operators(path: Path, facts: OnnxFacts) -> None:
    """Whether dvmsr's operators in a file are those that this version knows.

    Raises:
        IncompatibleModelError: if not.
    """
    if facts.former and not is_foreign(facts.metadata):
        raise IncompatibleModelError(
            f"{path} has dvmsr's operators in their former form, without groups; export it again: "
            f"{_export_command(path, facts.metadata)}"
        )
    if facts.has_operators and facts.opsets.get(DOMAIN, 0) > DOMAIN_VERSION:
        raise IncompatibleModelError(f"{path} was made by a newer dvmsr; upgrade dvmsr")


def check_bodies(path: Path, facts: OnnxFacts | OnnxHeader) -> None:
    """Whether ONNX Runtime alone runs a file.

    Raises:
        IncompatibleModelError: if not.
    """
    if facts.has_operators and not facts.has_bodies:
        raise IncompatibleModelError(
            f"{path} has no portable operator bodies; export it again or use the backend native"
        )


def _graph(file: BinaryIO, end: int) -> tuple[list[tuple[bytes, set[bytes]]], bool]:
    """Name and attributes of each node that is one of dvmsr's operators, and whether weights are in
    half precision; the graph is read to its end."""
    operators, half = [], False
    for field, value in protobuf.fields(file, end, frozenset({_NODE})):
        if field == _WEIGHT and isinstance(value, int):
            weight = protobuf.fields(file, file.tell() + value, frozenset())
            half |= (_WEIGHT_TYPE, _HALF) in weight
        elif field == _NODE and (operator := _operator(value)):
            operators.append(operator)
    return operators, half


def _operator(node: int | bytes) -> tuple[bytes, set[bytes]] | None:
    """Name and attributes, if it is one of dvmsr's."""
    operator = domain = b""
    attributes = set()
    for field, value in _message(node, {_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN}):
        if field == _NODE_OPERATOR:
            operator = _bytes(value)
        elif field == _NODE_DOMAIN:
            domain = _bytes(value)
        elif field == _NODE_ATTRIBUTE:
            attribute = dict(_message(value, {_ATTRIBUTE_NAME}))
            attributes.add(_bytes(attribute.get(_ATTRIBUTE_NAME, b"")))
    return (operator, attributes) if domain == DOMAIN.encode() else None


def _message(data: int | bytes, wanted: set[int]) -> Iterator[tuple[int, int | bytes]]:
    data = _bytes(data)
    return protobuf.fields(io.BytesIO(data), len(data), frozenset(wanted))


def _export_command(path: Path, metadata: dict[str, str]) -> str:
    """What makes a file anew in its place."""
    checkpoint = metadata.get("dvmsr.checkpoint", "unknown")
    words = ["dvmsr-export", "onnx", "CHECKPOINT" if checkpoint == "unknown" else checkpoint]
    words += ["--fp16"] if metadata.get("dvmsr.precision") == "fp16" else []
    words += ["--streaming"] if "dvmsr.streaming" in metadata else []
    return shlex.join([*words, "-o", str(path), "--overwrite"])


def _entry(data: int | bytes) -> tuple[str, int | bytes]:
    """Fields 1, a text, and 2 of a small message."""
    fields = dict(_message(data, {1, 2}))
    return _text(fields.get(1, b"")), fields.get(2, b"")


def _text(data: int | bytes) -> str:
    return _bytes(data).decode()


def _bytes(data: int | bytes) -> bytes:
    if isinstance(data, int):
        raise ValueError("not bytes")
    return data
