"""What an engine is made of, whatever it holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dvmsr.runtime.backends.trt.profiles import InputProfile

if TYPE_CHECKING:
    import onnx

Say = Callable[[str], None]
"""Where lines about the work go."""
Profiles = Mapping[str, InputProfile]
"""By the names of the model's inputs."""


class Source(ABC):
    """A model that an engine is built of; opening it reads no more than its description."""

    path: Path
    precision: str
    """`fp32`, `fp16` or `bf16`."""

    @abstractmethod
    def exported(self) -> onnx.ModelProto:
        """The ONNX model with its functions, its composed operators as their parts; the caller may
        change it.

        Raises:
            IncompatibleModelError: if it is damaged.
        """

    @abstractmethod
    def profiles(self, model: onnx.ModelProto, say: Say) -> dict[str, InputProfile]:
        """The shapes of each input, as they were asked for or follow from the model.

        Raises:
            UsageError: if they make no sense, or TensorRT does not take the tensors of the largest.
        """

    @abstractmethod
    def products(self, model: onnx.ModelProto) -> tuple[str, ...] | None:
        """Names of the only convolutions and matrix products that have to compute in `precision`;
        None: all have to.

        Raises:
            IncompatibleModelError: if the model has none although it says that it computes so.
        """

    @abstractmethod
    def check_finite(self, model: onnx.ModelProto, profiles: Profiles, say: Say) -> None:
        """Compute the model once on the processor: an engine cannot make numbers of what is none.

        Where that is not possible, it is said.

        Raises:
            IncompatibleModelError: if values are not finite.
        """

    @abstractmethod
    def check(self, engine: Path, profiles: Profiles, say: Say) -> None:
        """Compare the engine on this machine's GPU with the model.

        Where what runs engines is missing, that is said and nothing is compared.

        Raises:
            ParityError: if the two are further apart than the engine's precision explains.
            DvmsrError: if the engine does not run.
        """
