"""The network in FP64: how far its own rounding in FP32 takes it.

A network that divides by small differences, as instance norms over few values do, is further from
FP64 than two ways of computing a well-behaved one are from each other.
"""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Arrays = list[NDArray[np.generic]]


class Exact:
    """A network's outputs in FP64, by its inputs; None where it does not run in FP64 throughout."""

    def __init__(
        self, module: nn.Module, outputs: Callable[[nn.Module, Mapping[str, Tensor]], Arrays]
    ) -> None:
        self._module, self._outputs = module, outputs
        self._wide: nn.Module | None = None

    def __call__(self, given: Mapping[str, Tensor]) -> Arrays | None:
        try:
            if self._wide is None:
                self._wide = copy.deepcopy(self._module).double()
            return self._outputs(self._wide, {name: _widened(t) for name, t in given.items()})
        except MemoryError:
            raise
        except Exception:  # of the network's, which was not written for FP64
            return None


def _widened(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.dtype == torch.float32 else tensor
