"""Other weights in an exported file of the same body: bytes in place of bytes.

Neither onnx nor PyTorch takes part. The constants are arranged as `dvmsr.export.onnx.graph` does
it, which the tests hold this to. Symbols: C channels, D inner channels, R rank of delta, N state
size, s scale.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.utils import protobuf

Array = NDArray[Any]
Part = Callable[[Callable[[str], Array]], Array]

_GRAPH, _METADATA = 7, 14
"""Fields of a model (onnx.proto)."""
_INITIALIZER, _OUTPUT = 5, 12
"""Of a graph."""
_NAME, _RAW_DATA = 8, 9
"""Of a tensor."""
_KEY, _VALUE = 1, 2
"""Of an entry of the metadata."""
_VIMM = re.compile(r"rssb(\d+)/vimm(\d+)/(.+)")


def _of_x_proj(part: int) -> Part:
    """(D, R), (D, N) or (D, N)"""

    def split(w: Callable[[str], Array]) -> Array:
        N = w("mixer.A_log").shape[1]
        R = len(w("mixer.x_proj.weight")) - 2 * N
        return np.split(w("mixer.x_proj.weight"), [R, R + N])[part].T

    return split


_MIXER: Mapping[str, Part] = {
    "in_proj_x.weight": lambda w: np.split(w("mixer.in_proj.weight"), 2)[0].T,
    "in_proj_z.weight": lambda w: np.split(w("mixer.in_proj.weight"), 2)[1].T,
    "out_proj.weight": lambda w: w("mixer.out_proj.weight").T,
    "norm.weight": lambda w: w("norm.weight"),
    "norm.bias": lambda w: w("norm.bias"),
    "conv1d.weight": lambda w: w("mixer.conv1d.weight").squeeze(1),
    "conv1d.bias": lambda w: w("mixer.conv1d.bias"),
    "x_proj_dt.weight": _of_x_proj(0),
    "x_proj_B.weight": _of_x_proj(1),
    "x_proj_C.weight": _of_x_proj(2),
    "dt_proj.weight": lambda w: w("mixer.dt_proj.weight").T,
    "scan.A": lambda w: -np.exp(w("mixer.A_log")),
    "scan.D": lambda w: w("mixer.D"),
    "scan.delta_bias": lambda w: w("mixer.dt_proj.bias"),
}


def refill(exported: bytes, weights: Mapping[str, Array], checkpoint: str, sha256: str) -> bytes:
    """The file with other weights.

    Args:
        exported: an ONNX file of DVMSR in FP32 that `dvmsr-export onnx` wrote, one direction and
            `pixelshuffledirect`.
        weights: of a network of that configuration, by their names in a checkpoint.
        checkpoint, sha256: the name and hash of the file that they come from, for its metadata.

    Raises:
        KeyError: if weights are missing.
        ValueError: if one is of another size.
    """
    data = bytearray(exported)
    places = dict(_constants(exported))
    mean = np.frombuffer(exported[places["mean"]], "<f4")
    for name, place in places.items():
        values = _arranged(name, weights, mean)
        if values is None:
            continue
        raw = np.ascontiguousarray(values, "<f4").tobytes()
        if len(raw) != place.stop - place.start:
            raise ValueError(f"{name} has {len(raw)} bytes")
        data[place] = raw
    told = {"dvmsr.checkpoint": checkpoint, "dvmsr.checkpoint_sha256": sha256}
    return _with_metadata(bytes(data), told)


def _arranged(name: str, weights: Mapping[str, Array], mean: Array) -> Array | None:
    """What the graph's constant of that name holds; None if no weights."""
    if match := _VIMM.fullmatch(name):
        rssb, vimm, part = match.groups()
        prefix = f"layers.{rssb}.residual_group.blocks.{vimm}"
        return _MIXER[part](lambda key: weights[f"{prefix}.{key}"])
    if match := re.fullmatch(r"upsample/conv\.(weight|bias)", name):
        values = weights[f"upsample.0.{match[1]}"]  # (3*s*s, ...): the graph's are (s*s*3, ...)
        blocks = values.reshape(3, -1, *values.shape[1:])
        if match[1] == "bias":
            blocks = blocks + mean[:, None]
        return blocks.swapaxes(0, 1)
    key = re.sub(r"^rssb(\d+)/conv", r"layers.\1.conv", name).replace("/", ".")
    is_weight = key.endswith((".weight", ".bias"))
    return weights[key] if is_weight else None


def _constants(model: bytes) -> Iterator[tuple[str, slice]]:
    """The name of every constant, and where its bytes are."""
    file = io.BytesIO(model)
    for field, size in protobuf.fields(file, len(model), frozenset()):
        if field != _GRAPH or not isinstance(size, int):
            continue
        for part, length in protobuf.fields(file, file.tell() + size, frozenset()):
            if part == _INITIALIZER and isinstance(length, int):
                yield _constant(file, file.tell() + length)


def _constant(file: io.BytesIO, end: int) -> tuple[str, slice]:
    name, place = "", slice(0, 0)
    for field, value in protobuf.fields(file, end, frozenset({_NAME})):
        if isinstance(value, bytes):
            name = value.decode()
        elif field == _RAW_DATA:
            place = slice(file.tell(), file.tell() + value)
    return name, place


def whole_image(template: bytes, streaming: bytes) -> bytes:
    """What computes whole images, of a network that is there for strips.

    Args:
        template: an ONNX file for whole images of any size, that `dvmsr-export onnx` wrote of a
            network with the same body, of whatever scale.
        streaming: that of the network wanted, written with `--streaming` by the same version.
    """
    graph, told = _graph_and_metadata(streaming)
    tensors = {_text(value, _NAME): raw for field, value, raw in graph if field == _INITIALIZER}
    frame, frame_told = _graph_and_metadata(template)
    # The sizes of the output are called 4*height and 4*width.
    old, new = (b"%b*" % each[b"dvmsr.scale"] for each in (frame_told, told))
    parts = list[bytes]()
    for field, value, raw in frame:
        if field == _INITIALIZER:
            raw = tensors.get(_text(value, _NAME), raw)
        parts.append(raw.replace(old, new) if field == _OUTPUT else raw)
    made = [raw for field, _, raw in protobuf.pieces(template) if field not in (_GRAPH, _METADATA)]
    made.append(protobuf.bytes_field(_GRAPH, b"".join(parts)))
    for key, value in told.items():
        if key != b"dvmsr.streaming":
            made.append(protobuf.bytes_field(_METADATA, _entry(key, value)))
    return b"".join(made)


Pieces = list[tuple[int, int | bytes, bytes]]


def _graph_and_metadata(model: bytes) -> tuple[Pieces, dict[bytes, bytes]]:
    graph, told = Pieces(), dict[bytes, bytes]()
    for field, value, _ in protobuf.pieces(model):
        if field == _GRAPH and isinstance(value, bytes):
            graph = list(protobuf.pieces(value))
        elif field == _METADATA:
            told[_text(value, _KEY)] = _text(value, _VALUE)
    return graph, told


def _with_metadata(model: bytes, told: Mapping[str, str]) -> bytes:
    """The model with other values under these keys."""
    parts = list[bytes]()
    for field, entry, written in protobuf.pieces(model):
        if field == _METADATA and (name := _text(entry, _KEY).decode()) in told:
            new = _entry(name.encode(), told[name].encode())
            written = protobuf.bytes_field(_METADATA, new)
        parts.append(written)
    return b"".join(parts)


def _entry(key: bytes, value: bytes) -> bytes:
    return protobuf.bytes_field(_KEY, key) + protobuf.bytes_field(_VALUE, value)


def _text(message: int | bytes, number: int) -> bytes:
    """What a message has in a field of text."""
    if isinstance(message, bytes):
        for field, value in protobuf.fields(io.BytesIO(message), len(message), frozenset({number})):
            if field == number and isinstance(value, bytes):
                return value
    return b""
