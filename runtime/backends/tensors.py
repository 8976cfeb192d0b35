"""What runs networks of any kind: arrays in, arrays out, by name."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import UsageError

Arrays = dict[str, NDArray[Any]]
"""By the names of inputs or outputs."""

PRECISIONS = ("fp32", "fp16", "bf16", "fp64")


@dataclass(frozen=True)
class Port:
    """An input or output."""

    shape: tuple[int | str, ...] | None
    """A name stands for a size that may change; None where nothing is known."""
    dtype: str | None
    """NumPy's name of its type (`bfloat16` for that); None where nothing is known."""
    optional: bool = False
    """Whether an input may be left out."""

    @property
    def held(self) -> str | None:
        """NumPy's type of arrays for it: of bfloat16, which NumPy lacks, FP32, which the backend
        rounds."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    def __str__(self) -> str:
        if self.shape is None:
            return "any array"
        return f"{self.dtype or 'any type'} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class Example:
    """What an input looks like that the network was made for."""

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    """Of its values."""


class TensorNetwork(ABC):
    """A loaded network: arrays in, arrays out, by name.

    A backend sets the attributes and defines `_run`.
    """

    model: str
    """The model as its user named it."""
    backend: str
    """`native`, `portable`, `cuda`, `torch` or `tensorrt`."""
    precision: str
    """Type of the activations, one of `PRECISIONS`."""
    inputs: dict[str, Port]
    takes_any_name: bool = False
    """Whether it takes further inputs by any name."""
    outputs: dict[str, Port]
    """Empty where they are not known before the first call."""
    examples: dict[str, Example]
    """By input, as far as the model tells."""
    time_limit: float | None = None
    """Most seconds for one call; None for any."""
    clock: str = "wall clock"
    """What `seconds` reads: `wall clock` or `CUDA events`."""

    def __call__(self, **arrays: Any) -> Arrays:
        """The outputs by name. Arrays of another floating-point type are converted.

        Raises:
            UsageError: if an input is missing, unknown, or of another shape or kind.
            DvmsrError: if computing fails, for want of memory for instance.
        """
        return self._run(self.feeds(arrays))

    @abstractmethod
    def _run(self, feeds: Arrays) -> Arrays: ...

    def seconds(self, arrays: Mapping[str, Any]) -> float:
        """Compute once and tell how long it took; on a GPU what events on its stream measured."""
        feeds = self.feeds(arrays)
        start = time.perf_counter()
        self._run(feeds)
        return time.perf_counter() - start

    def device_memory(self) -> int | None:
        """Peak bytes of device memory held so far; None for a backend without a device."""
        return None

    def details(self) -> dict[str, Any]:
        """What else belongs into a report, JSON-ready: `build_seconds` and so on."""
        return {}

    def feeds(self, arrays: Mapping[str, Any]) -> Arrays:
        """The arrays in the types that the network takes.

        Raises:
            UsageError: if one is missing, unknown, or of another shape or kind.
        """
        others = {name: np.asarray(arrays[name]) for name in arrays if name not in self.inputs}
        if not self.takes_any_name:
            for name in others:
                raise UsageError(
                    f"{self.model} has no input {name}; it takes "
                    f"{', '.join(self.inputs) or 'none by name'}"
                )
        known = {
            name: self._feed(name, port, arrays)
            for name, port in self.inputs.items()
            if name in arrays or not port.optional
        }
        return {**known, **others}

    def _feed(self, name: str, port: Port, arrays: Mapping[str, Any]) -> NDArray[Any]:
        if name not in arrays:
            raise UsageError(f"{self.model} needs the input {name}: {port}")
        array = np.asarray(arrays[name])
        wanted = array.dtype if port.held is None else np.dtype(port.held)
        floats = array.dtype.kind == "f" and wanted.kind == "f"
        if array.dtype != wanted and not floats:
            raise UsageError(f"{name} is {array.dtype}, but {self.model} takes {port}")
        if port.shape is not None and (
            len(array.shape) != len(port.shape)
            or any(
                isinstance(size, int) and size != given
                for size, given in zip(port.shape, array.shape, strict=True)
            )
        ):
            raise UsageError(f"{name} has shape {array.shape}, but {self.model} takes {port}")
        return array.astype(wanted, copy=False)
