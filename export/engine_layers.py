"""What the layers of a network or engine compute in, and whether that is what was asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dvmsr.errors import DvmsrError

TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
"""TensorRT's names of the types that a layer can compute in."""
PRODUCTS = ("CONVOLUTION", "MATRIX_MULTIPLY")
"""Kinds of layers that hold nearly all of the arithmetic outside the plugin."""
PLUGIN = "PLUGIN_V3"

_HALF, _BF16, _FLOAT = r"\b(FP16|Half)\b", r"\bBF16|BFloat16\b", r"\b(FP32|Float)\b"
_PRODUCT = re.compile(r"conv|gemm|matrix|matmul", re.I)


@dataclass(frozen=True)
class Expected:
    """What the layers must be."""

    precision: str
    """`fp32`, `fp16` or `bf16`: of the convolutions and matrix products."""
    plugin_layers: int
    """How many layers must be the plugin's."""
    products: tuple[str, ...] | None
    """Names of the only nodes whose precision matters, where the operators run as their bodies,
    whose arithmetic is FP32; None: every convolution and matrix product matters."""

    def concerns(self, layer: str) -> bool:
        """Whether the precision of a product of that name, maybe of a fused layer, matters."""
        return self.products is None or any(name in layer for name in self.products)


def check_network(layers: Sequence[Mapping[str, str]], expected: Expected) -> None:
    """Whether TensorRT read the ONNX model as it was meant.

    Args:
        layers: name, kind and type of each layer that TensorRT's parser made.

    Raises:
        DvmsrError: if the plugin has more or fewer layers than it should, or a convolution or
            matrix product has another type.
    """
    _check_plugins(sum(layer["kind"] == PLUGIN for layer in layers), expected, "network")
    wrong = [
        layer["name"]
        for layer in layers
        if layer["kind"] in PRODUCTS
        and TYPES.get(layer["type"]) != expected.precision
        and expected.concerns(layer["name"])
    ]
    if wrong:
        raise _wrong_type(wrong, expected.precision)


def check_engine(layers: Sequence[Any], expected: Expected) -> dict[str, int]:
    """Whether the engine computes in the precision that was asked for, as its inspector tells.

    Args:
        layers: `Layers` of the inspector's JSON, made with detailed profiling verbosity.

    Returns:
        How many layers compute in which type; one whose type does not show counts as `other`.

    Raises:
        DvmsrError: if a convolution or matrix product is FP32 where half precision was asked
            for, if no layer is in half precision, or if plugin layers are missing.
    """
    described = [layer for layer in layers if isinstance(layer, Mapping)]
    types = {str(layer.get("Name")): _type_of(layer) for layer in described}
    counts = dict(Counter(types.values()))
    plugins = [layer for layer in described if "plugin" in str(layer.get("LayerType")).lower()]
    _check_plugins(len(plugins), expected, "engine")
    if expected.precision == "fp32":
        return counts
    wrong = [
        str(layer.get("Name"))
        for layer in described
        if _PRODUCT.search(f"{layer.get('LayerType')} {layer.get('TacticName')}")
        and layer not in plugins
        and types[str(layer.get("Name"))] == "fp32"
        and expected.concerns(str(layer.get("Name")))
    ]
    if wrong:
        raise _wrong_type(wrong, expected.precision)
    if not counts.get(expected.precision):
        raise DvmsrError(
            f"no layer of the engine computes in {expected.precision}; please report this"
        )
    return counts


def count_types(layers: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """How many layers of a parsed network compute in which type, constants and sizes left out."""
    types = [TYPES.get(layer["type"]) for layer in layers if layer["kind"] != "CONSTANT"]
    return dict(Counter(kind for kind in types if kind))


def _check_plugins(found: int, expected: Expected, what: str) -> None:
    if found != expected.plugin_layers:
        raise DvmsrError(
            f"the {what} has {found} plugin layers where the model has {expected.plugin_layers} "
            "custom nodes, so nothing was written; please report this"
        )


def _type_of(layer: Mapping[str, Any]) -> str:
    """FP32 if any tensor of the layer is, since that is what must not happen unseen."""
    tensors = [*layer.get("Inputs", []), *layer.get("Outputs", [])]
    text = " ".join(str(tensor.get("Format/Datatype")) for tensor in tensors)
    for pattern, name in ((_FLOAT, "fp32"), (_BF16, "bf16"), (_HALF, "fp16")):
        if re.search(pattern, text, re.I):
            return name
    return "other"


def _wrong_type(names: Sequence[str], precision: str) -> DvmsrError:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return DvmsrError(
        f"{', '.join(names[:3])}{more} would not compute in {precision}, so nothing was written; "
        f"export the model again with `dvmsr-export onnx --{precision}` or name the checkpoint"
    )
