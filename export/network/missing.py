"""Operators of PyTorch that its exporter has no translation of."""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18

from dvmsr.export.network.lines import line_here
from dvmsr.export.network.watching import Watch


def translations() -> dict[Any, Callable[..., Any]]:
    """For `torch.onnx.export`, by PyTorch operator."""
    return {torch.ops.aten.sort.default: _sort, torch.ops.aten.sort.stable: _stable_sort}


class StableSort(Watch):
    """In its block PyTorch, too, sorts equal values in their order, which it otherwise leaves open
    and which differs from processor to processor; notes where it does."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        sort = torch.ops.aten.sort
        if function in (sort.default, sort.stable):
            names = [argument.name for argument in function._schema.arguments]
            given = dict(zip(names, args, strict=False)) | kwargs
            if not given.pop("stable", False):
                self.lines.append(line_here())
            return sort.stable(given.pop("self"), stable=True, **given)
        return function(*args, **kwargs)


def _sort(values: Any, dim: int = -1, descending: bool = False) -> Any:
    """As TopK over the whole axis, which keeps the order of equal values, as a stable sort does."""
    length = opset18.Shape(values, start=dim, end=dim + 1 or None)
    return opset18.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


def _stable_sort(
    values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:
    return _sort(values, dim, descending)
