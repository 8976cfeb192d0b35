"""What the layers of a network or engine compute in, and whether that is what was asked for."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dvmsr.errors import DvmsrError

TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
"""TensorRT's names of the types that a layer can compute in."""
PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "EINSUM", "MATRIX_MULTIPLY")
"""Kinds of layers that hold nearly all of the arithmetic outside the plugin."""
PLUGIN = "PLUGIN_V3"

_HALF, _BF16, _FLOAT = r"\b(FP16|Half)\b", r"\b(BF16|BFloat16)\b", r"\b(FP32|Float)\b"
_PRODUCT = re.compile(r"conv|gemm|matrix|matmul", re.I)
_TYPE = "bf16|tf32|fp16|f16|fp32|f32"
_PAIR = re.compile(rf"(?<![a-z0-9])({_TYPE})({_TYPE})(?![a-z0-9])", re.I)
"""In names of xmma kernels the first pair has the types of the two factors; others are of the sum
and the result: `sm80_xmma_gemm_f16f16_f32f32_f32_tn_n`."""
_LETTER = re.compile(
    rf"(?:(?<![a-z0-9])(?P<before>{_TYPE})_)?(?<![a-z0-9])"
    r"(?P<letter>[hs])(?P<shape>\d*(?:x\d+)*)(?P<math>tf32|bf16|f16)?(?:gemm|cudnn|fprop)"
    rf"(?:(?:_[a-z]+)*?_(?P<after>{_TYPE})(?![a-z0-9]))?",
    re.I,
)
"""In names of cuBLAS, cuDNN and CUTLASS a letter has the type of the sum, behind `gemm` comes that
of the factors, where it is another, and before the letter the result's:
`turing_fp16_s1688gemm_fp16`."""
_NVJET = re.compile(r"(?<![a-z0-9])nvjet_(?:sm\d+_)?([hts])[a-z]{2}(?![a-z0-9])", re.I)
"""cuBLAS's newest: a letter each for the factors, the sum and the result."""


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
        return self.products is None or self._named.search(layer) is not None

    @cached_property
    def _named(self) -> re.Pattern[str]:
        """Finds whole names, `linear` not in `linear_1`, maybe with what TensorRT's Myelin puts
        behind them."""
        names = "|".join(map(re.escape, self.products or ()))
        return re.compile(rf"(?<!\w)({names})(?=_myl|\W|$)" if names else "(?!)")


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
    counts = dict(Counter(map(_type_of, described)))
    _check_plugins(sum(map(_is_plugin, described)), expected, "engine")
    if expected.precision == "fp32":
        return counts
    wrong = [
        _name(layer)
        for layer in described
        if _is_product(layer) and _type_of(layer) == "fp32" and expected.concerns(_name(layer))
    ]
    if wrong:
        raise _wrong_type(wrong, expected.precision)
    if not counts.get(expected.precision):
        raise DvmsrError(
            f"no layer of the engine computes in {expected.precision}; please report this"
        )
    return counts


def unjudged(layers: Sequence[Any], expected: Expected) -> list[str]:
    """Names of an engine's layers that may hold a product of full precision, which does not show.

    Of a product neither weights nor kernel nor inputs tell the type; or a layer with tensors of
    FP32 or of unknown type names a product among the nodes that it was made of.
    """
    if expected.precision == "fp32":
        return []
    names = []
    for layer in layers:
        if not isinstance(layer, Mapping) or _is_plugin(layer):
            continue
        nodes = f"{_name(layer)} {layer.get('Metadata', '')}"
        kind = _type_of(layer)
        hidden = _PRODUCT.search(nodes) and kind in ("fp32", "other")
        unclear = _is_product(layer) and kind == "other"
        if (hidden or unclear) and expected.concerns(nodes):
            names.append(_name(layer))
    return names


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


def _name(layer: Mapping[str, Any]) -> str:
    return str(layer.get("Name"))


def _is_plugin(layer: Mapping[str, Any]) -> bool:
    return "plugin" in str(layer.get("LayerType")).lower()


def _is_product(layer: Mapping[str, Any]) -> bool:
    text = f"{layer.get('LayerType')} {layer.get('TacticName')}"
    return not _is_plugin(layer) and _PRODUCT.search(text) is not None


def _type_of(layer: Mapping[str, Any]) -> str:
    """What a product multiplies; any other layer is FP32 if any of its tensors is."""
    inputs, outputs = ([_format(t) for t in layer.get(k) or []] for k in ("Inputs", "Outputs"))
    if not _is_product(layer):
        return _first_type(" ".join([*inputs, *outputs]))
    weights = layer.get("Weights")
    if isinstance(weights, Mapping) and _first_type(str(weights.get("Type"))) != "other":
        return _first_type(str(weights.get("Type")))
    return _factors(str(layer.get("TacticName"))) or _first_type(" ".join(inputs))


def _factors(kernel: str) -> str | None:
    """The type of what a kernel multiplies, as its name tells; None where it does not."""
    pair = _PAIR.search(kernel)
    if pair:
        types = {_normal(name) for name in pair.groups()}
        return "fp32" if "fp32" in types else types.pop()
    nvjet = _NVJET.search(kernel)
    if nvjet:
        return {"h": "fp16", "t": "bf16", "s": "fp32"}[nvjet[1].lower()]
    named = _LETTER.search(kernel)
    if named is None:
        return None
    if named["after"]:
        return _normal(named["after"])
    if named["letter"].lower() == "h":
        return "fp16"
    # A sum in FP32. Only these shapes have FP32 factors, and no result of another type.
    plain = not named["before"] or _normal(named["before"]) == "fp32"
    single = plain and named["shape"] in ("", "1688", "1684") and named["math"] in (None, "tf32")
    return "fp32" if single else None


def _normal(name: str) -> str:
    """Of a type, whose name is in `_TYPE`."""
    name = name.lower()
    return "bf16" if name == "bf16" else "fp32" if name.endswith("32") else "fp16"


def _format(tensor: Any) -> str:
    return str(tensor.get("Format/Datatype")) if isinstance(tensor, Mapping) else ""


def _first_type(text: str) -> str:
    """FP32 before half precision, since that is what must not happen unseen."""
    for pattern, name in ((_FLOAT, "fp32"), (_BF16, "bf16"), (_HALF, "fp16")):
        if re.search(pattern, text, re.I):
            return name
    return "other"


def _wrong_type(names: Sequence[str], precision: str) -> DvmsrError:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    option = " --fp16" if precision == "fp16" else ""
    return DvmsrError(
        f"{', '.join(names[:3])}{more} would not compute in {precision}, so nothing was written; "
        f"export the model again with `dvmsr-export onnx{option}`, or name its checkpoint"
    )
