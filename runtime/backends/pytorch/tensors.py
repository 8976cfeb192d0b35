"""Any network in PyTorch on the CPU, for arrays; imports torch only when one is opened."""

from typing import Any

import numpy as np

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError, summary
from dvmsr.runtime.backends.tensors import Arrays, Port, TensorNetwork

_PRECISIONS = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64"}
"""By the type of weights; the first that any weight has is the network's."""


class TorchTensors(TensorNetwork):
    """What `package.module:factory` returns, with the stand-ins for mamba-ssm in place, or a
    checkpoint of DVMSR.

    Inputs are the parameters of `forward`; fractions are converted to the type of the weights.
    Outputs are called as an export calls them: `output`, `output_0` and so on, or the keys of a
    mapping.

    Args:
        model: as of `dvmsr.networks.load`.
        threads: how many PyTorch uses, in the whole process; None leaves it as it is.

    Raises:
        MissingComponentError: if PyTorch, or a package that the network imports, is not installed.
        UsageError: if the weights are not on the CPU; otherwise as `dvmsr.networks.load`.
    """

    backend = "torch"

    def __init__(self, model: str, threads: int | None) -> None:
        try:
            import torch

            from dvmsr import compat, networks
            from dvmsr.runtime.backends.pytorch import ports
        except ModuleNotFoundError as error:
            raise MissingComponentError(
                f"{model} runs in PyTorch, which needs {error.name}: pip install 'dvmsr[train]'"
            ) from None
        self.model = model
        with compat.importing():
            self.module = networks.load(model)
        weights = [*self.module.parameters(), *self.module.buffers()]
        for weight in weights:
            if weight.device.type != "cpu":
                raise UsageError(
                    f"{model} has weights on {weight.device}; return the network on the CPU"
                )
        types = {str(weight.dtype).removeprefix("torch.") for weight in weights}
        self._floats = next((name for name in _PRECISIONS if name in types), "float32")
        self.precision = _PRECISIONS[self._floats]
        self.inputs = {
            name: Port(None, None, optional)
            for name, optional in ports.parameters(self.module).items()
        }
        self.outputs, self.examples = {}, {}
        self.takes_any_name = ports.takes_any_name(self.module)
        self._torch, self._flatten = torch, ports.flatten
        if threads:
            torch.set_num_threads(threads)

    def _run(self, feeds: Arrays) -> Arrays:
        torch = self._torch
        try:
            tensors = {name: self._tensor(name, array) for name, array in feeds.items()}
            with torch.inference_mode():
                outputs = self._flatten(self.module(**tensors))
            found = {name: self._array(tensor) for name, tensor in outputs.items()}
        except (DvmsrError, MemoryError):
            raise
        except Exception as error:
            raise DvmsrError(
                f"{self.model} fails on these inputs ({summary(error)}); give it the sizes and "
                "types that it takes"
            ) from None
        self.outputs = {name: Port(None, None) for name in found}
        return found

    def _tensor(self, name: str, array: Any) -> Any:
        """A copy, which the network may change."""
        try:
            tensor = self._torch.from_numpy(np.array(array, order="C"))
        except TypeError:
            raise UsageError(f"{name} is {array.dtype}, which PyTorch does not know") from None
        return tensor.to(getattr(self._torch, self._floats)) if array.dtype.kind == "f" else tensor

    def _array(self, tensor: Any) -> Any:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.dtype == self._torch.bfloat16 else tensor).numpy()
