"""Other weights in an exported file of the same body: bytes in place of bytes.

Neither onnx nor PyTorch takes part. The constants are arranged as `dvmsr.export.onnx.graph` does
it, which the tests hold this to. Symbols: C channels, D inner channels, R rank of delta, N state
size, s scale.
"""

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
    tensors, told = _tensors(exported), _metadata(exported)
    mean = np.frombuffer(_text(tensors["mean"], _RAW_DATA), "<f4")
    arranged = {name: _arranged(name, weights, mean) for name in tensors}
    filled = {
        name: _filled(name, tensors[name], values)
        for name, values in arranged.items()
        if values is not None
    }
    told |= {"dvmsr.checkpoint": checkpoint, "dvmsr.checkpoint_sha256": sha256}
    return _rebuilt(exported, filled, told)


def whole_image(template: bytes, streaming: bytes) -> bytes:
    """What computes whole images, of a network that is there for strips.

    Args:
        template: an ONNX file for whole images of any size, that `dvmsr-export onnx` wrote of a
            network with the same body, of whatever scale.
        streaming: that of the network wanted, written with `--streaming` by the same version.
    """
    told = _metadata(streaming)
    del told["dvmsr.streaming"]
    return _rebuilt(template, _tensors(streaming), told)


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


def _filled(name: str, tensor: bytes, values: Array) -> bytes:
    """The tensor with other values.

    Raises:
        ValueError: if there are more or fewer.
    """
    raw = np.ascontiguousarray(values, "<f4").tobytes()
    parts = list[bytes]()
    for field, value, written in protobuf.pieces(tensor):
        if field == _RAW_DATA and isinstance(value, bytes):
            if len(raw) != len(value):
                raise ValueError(f"{name} has {len(raw)} bytes")
            written = protobuf.bytes_field(_RAW_DATA, raw)
        parts.append(written)
    return b"".join(parts)


def _rebuilt(model: bytes, tensors: Mapping[str, bytes], told: Mapping[str, str]) -> bytes:
    """The model with these constants in place of those of the same names, and this metadata."""
    # The sizes of the output are called 4*height and 4*width.
    old, new = (f"{of['dvmsr.scale']}*".encode() for of in (_metadata(model), told))
    graph = list[bytes]()
    for field, value, written in _graph(model):
        if field == _INITIALIZER and (tensor := tensors.get(_text(value, _NAME).decode())):
            written = protobuf.bytes_field(_INITIALIZER, tensor)
        graph.append(written.replace(old, new) if field == _OUTPUT else written)
    parts = [raw for field, _, raw in protobuf.pieces(model) if field not in (_GRAPH, _METADATA)]
    parts.append(protobuf.bytes_field(_GRAPH, b"".join(graph)))
    for pair in told.items():
        key, text = (part.encode() for part in pair)
        entry = protobuf.bytes_field(_KEY, key) + protobuf.bytes_field(_VALUE, text)
        parts.append(protobuf.bytes_field(_METADATA, entry))
    return b"".join(parts)


def _graph(model: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """The pieces of the graph."""
    for field, value, _ in protobuf.pieces(model):
        if field == _GRAPH and isinstance(value, bytes):
            yield from protobuf.pieces(value)


def _tensors(model: bytes) -> dict[str, bytes]:
    """The graph's constants by their names."""
    return {
        _text(value, _NAME).decode(): value
        for field, value, _ in _graph(model)
        if field == _INITIALIZER and isinstance(value, bytes)
    }


def _metadata(model: bytes) -> dict[str, str]:
    return {
        _text(value, _KEY).decode(): _text(value, _VALUE).decode()
        for field, value, _ in protobuf.pieces(model)
        if field == _METADATA
    }


def _text(message: int | bytes, number: int) -> bytes:
    """What a message has in a field of bytes; nothing if it has none."""
    if isinstance(message, bytes):
        for field, value, _ in protobuf.pieces(message):
            if field == number and isinstance(value, bytes):
                return value
    return b""
