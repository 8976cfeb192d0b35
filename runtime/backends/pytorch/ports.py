"""What a network in PyTorch takes and returns, by name."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dvmsr.errors import IncompatibleModelError

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def parameters(module: nn.Module) -> dict[str, bool]:
    """The parameters of `forward` that may be given by name, and whether each may be left out."""
    return {
        parameter.name: parameter.default is not inspect.Parameter.empty
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in _NAMED
    }


def takes_any_name(module: nn.Module) -> bool:
    """Whether `forward` takes further inputs by any name."""
    return any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD
        for parameter in inspect.signature(module.forward).parameters.values()
    )


def flatten(returned: Any) -> dict[str, Tensor]:
    """A tensor is `output`; those of a sequence are `output_0` and so on, those of a mapping have
    its keys, `key_0` and so on where one holds several; None is left out.

    Raises:
        IncompatibleModelError: if there is none, something among it is no tensor, or two have one
            name.
    """
    if isinstance(returned, Tensor):
        named = [("output", returned)]
    elif isinstance(returned, Mapping):
        named = []
        for key, value in returned.items():
            named += [(str(key), value)] if isinstance(value, Tensor) else _numbered(key, value)
    else:
        named = _numbered("output", returned)
    if not named:
        raise IncompatibleModelError("the network returns no tensor; return its results")
    for _, value in named:
        if not isinstance(value, Tensor):
            raise IncompatibleModelError(
                f"the network returns an object of type {type(value).__name__} among its tensors; "
                "return tensors alone"
            )
    if len(found := dict(named)) < len(named) or "" in found:
        raise IncompatibleModelError(
            f"the network names its outputs {', '.join(name for name, _ in named)}, as text; give "
            "each a name of its own"
        )
    return found


def _numbered(name: object, returned: Any) -> list[tuple[str, Any]]:
    leaves = [leaf for leaf in pytree.tree_leaves(returned) if leaf is not None]
    return [(f"{name}_{i}", leaf) for i, leaf in enumerate(leaves)]
