"""What a network is exported with: example inputs, and which of their axes may change."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dvmsr.errors import UsageError
from dvmsr.runtime.backends.pytorch.ports import parameters, takes_any_name
from dvmsr.utils.arrays import TYPES, parse_arrays, read_arrays

_AXIS = re.compile(r"(?P<axis>\d+)(?::(?P<name>[^\W\d]\w*))?")
_TAKEN = (*TYPES, "int16", "int8", "uint8")


@dataclass(frozen=True)
class Inputs:
    """Example inputs by the names of the parameters of `forward`, and their dynamic axes."""

    tensors: dict[str, Tensor]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    """Per input the name of each axis whose size may change; axes of one name change together."""

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            kind = str(tensor.dtype).removeprefix("torch.")
            if kind not in _TAKEN:
                remedy = " as float32" if "float" in kind else ""
                raise UsageError(
                    f"the example input {name} is {kind}; give it{remedy}: an input is one of "
                    f"{', '.join(_TAKEN)}"
                )
            if not tensor.numel():
                raise UsageError(f"the example input {name} is empty; give it elements")
        sizes: dict[str, int] = {}
        for name, axes in self.dynamic.items():
            if name not in self.tensors:
                raise UsageError(f"there is no input {name}; there is {', '.join(self.tensors)}")
            shape = self.tensors[name].shape
            for axis, label in axes.items():
                if axis >= len(shape):
                    raise UsageError(
                        f"{name} has {len(shape)} axes, so none with number {axis}; count from 0"
                    )
                if sizes.setdefault(label, shape[axis]) != shape[axis]:
                    raise UsageError(
                        f"the axes called {label} have {sizes[label]} and {shape[axis]} in the "
                        "examples; give them one size, or names of their own"
                    )

    @property
    def axes(self) -> dict[str, int]:
        """The size of each dynamic axis in the examples, by its name."""
        return {
            label: self.tensors[name].shape[axis]
            for name, axes in self.dynamic.items()
            for axis, label in axes.items()
        }

    def resized(self, sizes: Mapping[str, int], seed: int = 1) -> dict[str, Tensor]:
        """Inputs of the same kinds with other sizes of the dynamic axes: fractions uniform in the
        range of the example, whole numbers drawn from it."""
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for name, example in self.tensors.items():
            shape = list(example.shape)
            for axis, label in self.dynamic.get(name, {}).items():
                shape[axis] = sizes.get(label, shape[axis])
            if example.dtype.is_floating_point:
                low, high = example.min(), example.max()
                values = torch.rand(shape, generator=generator).to(example.dtype)
                found[name] = low + (high - low) * values
            else:
                index = torch.randint(example.numel(), shape, generator=generator)
                found[name] = example.flatten()[index]
        return found


def parse_inputs(
    module: nn.Module,
    shapes: Sequence[str],
    file: Path | None = None,
    dynamic: Sequence[str] = (),
) -> Inputs:
    """The inputs that a command line describes.

    Args:
        shapes: `[NAME=]1x3x64x64[:TYPE]` each; those without a name take the parameters of
            `forward` in turn. Their values are uniform in [0, 1), whole numbers 0 or 1.
        file: an `.npz` with arrays by name.
        dynamic: `[NAME=]0:batch,2:height` each; without a name the first input's. An axis 0
            without a name is called batch, another like its input and number.

    Raises:
        UsageError: if one of them makes no sense.
        DvmsrError: if the file cannot be read.
    """
    known = list(parameters(module))
    arrays = parse_arrays(shapes, _read(file, known, takes_any_name(module)), known)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if not tensors:
        raise UsageError(
            "a network needs example inputs; give their sizes, as in --input 1x3x64x64"
        )
    return Inputs(tensors, dict(_dynamic(dynamic, tuple(tensors))))


def check_names(module: nn.Module, inputs: Inputs) -> None:
    """Whether `forward` takes these inputs by name.

    Raises:
        UsageError: if it does not.
    """
    if takes_any_name(module):
        return
    known = parameters(module)
    for name in inputs.tensors:
        if name not in known:
            raise UsageError(
                f"forward has no parameter {name}; it takes {', '.join(known) or 'none by name'}"
            )


def _dynamic(texts: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, dict[int, str]]]:
    found: dict[str, dict[int, str]] = {}
    for text in texts:
        name, equals, rest = text.rpartition("=")
        name = name if equals else names[0]
        for part in rest.split(","):
            match = _AXIS.fullmatch(part)
            if match is None:
                raise UsageError(
                    f"--dynamic {text} is not [NAME=]AXIS[:LABEL],…, such as 0:batch,2:height"
                )
            axis = int(match["axis"])
            if axis in found.get(name, {}):
                raise UsageError(f"--dynamic {text} names axis {axis} of {name} once more")
            label = match["name"] or ("batch" if axis == 0 else f"{name}_{axis}")
            found.setdefault(name, {})[axis] = label
    yield from found.items()


def _read(file: Path | None, known: Sequence[str], any_name: bool) -> dict[str, NDArray[Any]]:
    arrays = read_arrays(file)
    for name, array in arrays.items():
        if name not in known and not any_name:
            raise UsageError(
                f"{file} holds {name}, which is no parameter of forward; it takes "
                f"{', '.join(known) or 'none by name'}"
            )
        if array.dtype.name != "bool" and not hasattr(torch, array.dtype.name):
            raise UsageError(
                f"{name} in {file} is {array.dtype}; give it in a type that PyTorch has"
            )
    return arrays
