"""The test vectors of StripConv3x3 and StripAdd, their FP64 truth, and models of one node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from conv3x3_vectors import CONV3X3_TOLERANCE, conv3x3_truth

CACHED = 2


@dataclass(frozen=True)
class StripCase:
    """B, H, W, C, E of a convolution, whose result has `rows` = H - top + bottom; q of a sum."""

    batch: int
    height: int
    width: int
    channels: int
    out_channels: int
    top: bool = False
    bottom: bool = False
    waiting: int = 1

    def __str__(self) -> str:
        sizes = f"B{self.batch}-H{self.height}-W{self.width}-C{self.channels}-E{self.out_channels}"
        place = ("-top" if self.top else "") + ("-bottom" if self.bottom else "")
        return f"{sizes}-q{self.waiting}{place}"


STRIP_CASES = [
    StripCase(1, 1, 1, 1, 1),
    StripCase(1, 1, 3, 4, 4, bottom=True, waiting=5),
    StripCase(2, 1, 5, 3, 60, top=True, bottom=True, waiting=3),
    StripCase(0, 5, 5, 4, 4),
    StripCase(2, 2, 7, 17, 33, waiting=5),
    StripCase(2, 8, 70, 60, 48, waiting=1),
    StripCase(2, 9, 18, 16, 16, top=True, waiting=4),
    StripCase(1, 6, 6, 130, 5, bottom=True, waiting=2),
]


def strip_conv_inputs(case: StripCase, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """In the order of the operator's inputs; what comes before the top is anything."""
    B, H, W, C, E = case.batch, case.height, case.width, case.channels, case.out_channels
    rng = np.random.default_rng([seed, B, H, W, C, E])
    values = {
        "x": rng.standard_normal((B, H, W, C)),
        "weight": rng.standard_normal((E, C, 3, 3)) / np.sqrt(9 * C),
        "bias": rng.standard_normal(E),
        "rows": rng.standard_normal((B, CACHED, W, C)),
    }
    return {
        **{name: value.astype(dtype) for name, value in values.items()},
        "top": np.array([case.top], np.int64),
        "bottom": np.array([case.bottom], np.int64),
    }


def strip_conv_truth(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """y in FP64, and the rows that are kept."""
    x, weight, bias, rows, top, bottom = inputs.values()
    above = np.zeros_like(rows[:, :1]) if top[0] else rows
    below = np.zeros_like(rows[:, : int(bottom[0])])
    seen = np.concatenate([above, x, below], 1)
    y = conv3x3_truth(seen, weight, bias, (0, 1, 0, 1))
    return y, np.concatenate([rows, x], 1)[:, -CACHED:]


def strip_conv_is_true(outputs: Sequence[np.ndarray], inputs: dict[str, np.ndarray]) -> bool:
    """Whether y and the kept rows are what they must be."""
    x, weight, bias, rows, *_ = inputs.values()
    y, kept = strip_conv_truth(inputs)
    if [output.shape for output in outputs] != [y.shape, kept.shape]:
        return False
    if not np.array_equal(outputs[1], kept):
        return False
    largest = max(np.abs(part.astype(np.float64)).max(initial=0) for part in (x, rows))
    sums = largest * np.abs(weight.astype(np.float64)).sum((1, 2, 3)) + np.abs(bias)
    return bool((np.abs(outputs[0] - y) <= CONV3X3_TOLERANCE[str(x.dtype)] * sums).all())


def strip_add_inputs(case: StripCase, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """`deep` has as many rows as there are, or one less."""
    B, H, W, C, q = case.batch, case.height, case.width, case.channels, case.waiting
    rows = H if case.top else H + q - 1
    rng = np.random.default_rng([seed, B, H, W, C, q])
    values = {
        "deep": rng.standard_normal((B, rows, W, C)),
        "x": rng.standard_normal((B, H, W, C)),
        "waiting": rng.standard_normal((B, q, W, C)),
    }
    arrays = {name: value.astype(dtype) for name, value in values.items()}
    return {**arrays, "top": np.array([case.top], np.int64)}


def strip_add_truth(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """y, rounded once, and the rows that wait."""
    deep, x, waiting, top = inputs.values()
    queue = x if top[0] else np.concatenate([waiting, x], 1)
    wide = np.float64 if deep.dtype == np.float32 else np.float32
    y = (deep.astype(wide) + queue[:, : deep.shape[1]].astype(wide)).astype(deep.dtype)
    return y, np.concatenate([waiting, x], 1)[:, -waiting.shape[1] :]


def strip_model(
    op: str, inputs: dict[str, np.ndarray], constant: Sequence[str] = (), **attributes: Any
) -> Any:
    """One node that takes these, sizes left open; its outputs are y and next."""
    from onnx import helper, numpy_helper

    kinds = {n: helper.np_dtype_to_tensor_dtype(value.dtype) for n, value in inputs.items()}
    node = helper.make_node(op, list(inputs), ["y", "next"], domain="dvmsr", **attributes)
    given = [
        helper.make_tensor_value_info(n, kinds[n], [f"{n}{i}" for i in range(v.ndim)])
        for n, v in inputs.items()
        if n not in constant
    ]
    kind = next(iter(kinds.values()))
    made = [helper.make_tensor_value_info(name, kind, [None] * 4) for name in ("y", "next")]
    weights = [numpy_helper.from_array(inputs[name], name) for name in constant]
    graph = helper.make_graph([node], "strip", given, made, weights)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("dvmsr", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)
