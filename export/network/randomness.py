"""Random numbers that a network draws while it infers."""

from typing import Any

import torch

from dvmsr.export.network.lines import line_here
from dvmsr.export.network.watching import Watch


class Draws(Watch):
    """Notes, in its block, each line that draws; one that may draw and does not, as dropout at
    inference, is none."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(function, "tags", ()):
            arguments = function._schema.arguments
            values = {argument.name: argument.default_value for argument in arguments}
            values |= dict(zip(values, args, strict=False)) | kwargs
            if all(values.get(key, True) for key in ("p", "dropout_p", "train", "training")):
                self.lines.append(line_here() or function.name())
        return function(*args, **kwargs)
