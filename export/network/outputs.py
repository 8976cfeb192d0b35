"""What a network returns, as tensors by name that an ONNX file can give."""

from typing import Any

import torch
from torch import Tensor

from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.pytorch import ports


def flatten(returned: Any) -> dict[str, Tensor]:
    """As `ports.flatten`.

    Raises:
        IncompatibleModelError: as that, or if one is complex or bfloat16.
    """
    found = ports.flatten(returned)
    for name, value in found.items():
        if value.is_complex():
            raise IncompatibleModelError(
                f"the network's {name} is complex, which ONNX is not; return torch.view_as_real of "
                "it"
            )
        if value.dtype == torch.bfloat16:
            raise IncompatibleModelError(
                f"the network's {name} is bfloat16, which NumPy is not; return it as .float()"
            )
    return found
