"""Inputs and outputs in a model's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.export.triton.config import Message, Symbol
from dvmsr.runtime.backends.tensors import Port

BATCH = "batch"
"""What an axis is called along which independent inputs lie."""
DEFAULT_MAX_BATCH = 8
_TYPES = {
    **{name: name.upper() for name in ("bool", "int8", "int16", "int32", "int64")},
    **{name: name.upper() for name in ("uint8", "uint16", "uint32", "uint64")},
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    "object": "STRING",
}
"""Triton's name by NumPy's."""

Ports = Mapping[str, Port]
Shapes = Mapping[str, tuple[int, ...]]
"""By the names of inputs, batch and all."""


@dataclass(frozen=True)
class Signature:
    """What a network takes and gives, for a model's configuration."""

    model: str
    """What messages call it."""
    inputs: Ports
    outputs: Ports
    usual: Shapes
    """Shapes that the server computes once before it is ready; empty for none."""

    @property
    def takes_batches(self) -> bool:
        """Whether the first axis of every tensor is a batch of any size."""
        ports = (*self.inputs.values(), *self.outputs.values())
        return all(port.shape and port.shape[0] == BATCH for port in ports)

    def max_batch(self, asked: int | None) -> int:
        """The field `max_batch_size`; 0 for a network whose inputs have no batch.

        Args:
            asked: what the user wants; None for what is usual.

        Raises:
            UsageError: if there is none and one was asked for.
        """
        if self.takes_batches:
            return asked or DEFAULT_MAX_BATCH
        if asked is not None:
            raise UsageError(
                f"{self.model} has tensors whose first axis is no batch of any size; leave out "
                "--max-batch"
            )
        return 0

    def fields(self, max_batch: int) -> dict[str, Any]:
        """The fields `max_batch_size`, `input`, `output` and `model_warmup`.

        Raises:
            IncompatibleModelError: if a tensor is of a type or shape that Triton does not know.
        """
        skip = 1 if max_batch else 0
        fields: dict[str, Any] = {
            "max_batch_size": max_batch,
            "input": [self._tensor(name, port, skip) for name, port in self.inputs.items()],
            "output": [self._tensor(name, port, skip) for name, port in self.outputs.items()],
        }
        if self.usual:
            fields["model_warmup"] = {
                "name": "usual",
                "batch_size": min(max_batch, next(iter(self.usual.values()))[0]) if skip else 1,
                "inputs": [
                    {"key": name, "value": self._zeros(port, self.usual[name][skip:])}
                    for name, port in self.inputs.items()
                ],
            }
        return fields

    def _tensor(self, name: str, port: Port, skip: int) -> Message:
        if port.shape is None:
            raise IncompatibleModelError(
                f"{self.model} does not tell the shape of {name}; export it again"
            )
        dims = [size if isinstance(size, int) else -1 for size in port.shape[skip:]]
        tensor: dict[str, Any] = {"name": name, "data_type": self._type(port), "dims": dims or [1]}
        if not dims:  # Triton knows no scalars but by this
            tensor["reshape"] = {}
        if port.optional:
            tensor["optional"] = True
        return tensor

    def _zeros(self, port: Port, shape: tuple[int, ...]) -> Message:
        return {"data_type": self._type(port), "dims": list(shape) or [1], "zero_data": True}

    def _type(self, port: Port) -> Symbol:
        if port.dtype not in _TYPES:
            raise IncompatibleModelError(
                f"{self.model} has tensors of type {port.dtype}, which Triton does not know"
            )
        return Symbol(f"TYPE_{_TYPES[port.dtype]}")


def of_pictures(model: str, dtype: str, size: tuple[int, int], batch: int = 1) -> Signature:
    """Of DVMSR: `input` (batch, 3, height, width) -> `output` of s times the height and width.

    Args:
        size: usual height and width.
        batch: the usual one.
    """
    shape = (BATCH, 3, "height", "width")
    return Signature(
        *(model, {"input": Port(shape, dtype)}, {"output": Port(shape, dtype)}),
        {"input": (batch, 3, *size)},
    )
