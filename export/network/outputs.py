"""What a network returns, as tensors by name."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from dvmsr.errors import IncompatibleModelError


def flatten(returned: Any) -> dict[str, Tensor]:
    """A tensor is `output`; those of a sequence are `output_0` and so on, those of a mapping have
    its keys.

    Raises:
        IncompatibleModelError: if something among it is no tensor.
    """
    if isinstance(returned, Tensor):
        return {"output": returned}
    if isinstance(returned, Mapping) and all(isinstance(v, Tensor) for v in returned.values()):
        return {str(key): value for key, value in returned.items()}
    leaves = pytree.tree_leaves(returned)
    tensors = [leaf for leaf in leaves if leaf is not None]
    for leaf in tensors:
        if not isinstance(leaf, Tensor):
            raise IncompatibleModelError(
                f"the network returns a {type(leaf).__name__} among its tensors; return tensors "
                "alone"
            )
    return {f"output_{i}": tensor for i, tensor in enumerate(tensors)}
