"""Random numbers that a network draws while it infers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dvmsr.export.network.lines import line_here


class Draws(TorchDispatchMode):
    """Notes, in its block, each line that draws; one that may draw and does not, as dropout at
    inference, is none."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in getattr(function, "tags", ()):
            arguments = function._schema.arguments
            values = {argument.name: argument.default_value for argument in arguments}
            values |= dict(zip(values, args, strict=False)) | given
            if all(values.get(key, True) for key in ("p", "dropout_p", "train", "training")):
                self.lines.append(line_here() or function.name())
        return function(*args, **given)
