"""What networks of any kind are run on to be compared or timed."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import UsageError
from dvmsr.runtime.backends.tensors import Arrays, Example, TensorNetwork
from dvmsr.utils.arrays import parse_arrays, random_array, read_arrays


def find_inputs(
    networks: Sequence[TensorNetwork], shapes: Sequence[str], file: Path | None
) -> list[Arrays]:
    """The same arrays for all networks, for each by the names of its own inputs.

    What is not given has the sizes, types and ranges that a network tells: one that takes no
    others, else one that was built for them, else the first. Where a network needs one input and
    there is one array, that is it, whatever the two are called.

    Args:
        shapes, file: as of `parse_arrays` and `read_arrays`; sizes without a name are those of the
            first network's inputs in turn.

    Raises:
        UsageError: if an input is missing or unknown, or an array does not fit.
        DvmsrError: if the file cannot be read.
    """
    arrays = parse_arrays(shapes, read_arrays(file), list(networks[0].inputs))
    telling = [network for network in networks if _examples(network) is not None]
    if telling:
        network = min(telling, key=_freedom)
        if not set(_needed(network)) <= set(_by_its_names(network, arrays)):
            arrays = {**_made(network), **arrays}
    if not arrays:
        ports = "; ".join(f"{name}: {port}" for name, port in networks[0].inputs.items())
        raise UsageError(
            f"{networks[0].model} does not tell the sizes of its inputs ({ports}); give them, as "
            "in --input 1x3x64x64, or arrays with --inputs FILE.npz"
        )
    known = dict.fromkeys(name for network in networks for name in network.inputs)
    for name in arrays:
        if name not in known and not any(network.takes_any_name for network in networks):
            raise UsageError(
                f"no model has an input {name}; there is {', '.join(known) or 'none by name'}"
            )
    found = []
    for network in networks:
        taken = _by_its_names(network, arrays)
        if len(taken) < len(arrays):
            left = ", ".join(name for name in arrays if name not in taken)
            warnings.warn(f"{network.model} is run without {left}, which it lacks", stacklevel=2)
        found.append(network.feeds(taken))
    return found


def _needed(network: TensorNetwork) -> list[str]:
    return [name for name, port in network.inputs.items() if not port.optional]


def _by_its_names(network: TensorNetwork, arrays: Arrays) -> Arrays:
    """Those of the arrays that a network takes, as its own inputs are called."""
    taken = {n: a for n, a in arrays.items() if n in network.inputs or network.takes_any_name}
    needed = _needed(network)
    if not taken and len(needed) == len(arrays) == 1:
        return {needed[0]: next(iter(arrays.values()))}
    return taken


def _examples(network: TensorNetwork) -> dict[str, Example] | None:
    """Of every input that the network needs, or None."""
    found = dict(network.examples)
    for name in _needed(network):
        shape = network.inputs[name].shape
        if name not in found and shape is not None:
            sizes = tuple(size for size in shape if isinstance(size, int))
            if sizes == shape:
                found[name] = Example(sizes)
    needed = _needed(network)
    return {name: found[name] for name in needed} if needed and set(needed) <= set(found) else None


def _freedom(network: TensorNetwork) -> int:
    """How much is lost where a network gets other sizes than it tells: the less, the more."""
    fixed = all(
        port.shape is not None and all(isinstance(size, int) for size in port.shape)
        for port in network.inputs.values()
    )
    return 0 if fixed else 1 if network.backend == "tensorrt" else 2


def _made(network: TensorNetwork) -> Arrays:
    generator = np.random.default_rng(1)
    arrays: Arrays = {}
    for name, example in (_examples(network) or {}).items():
        dtype = network.inputs[name].held or "float32"
        if np.dtype(dtype).kind not in "biuf":
            raise UsageError(
                f"the input {name} of {network.model} is {dtype}, of which nothing can be made up; "
                "give an array with --inputs FILE.npz"
            )
        arrays[name] = random_array(example.shape, dtype, generator, example.low, example.high)
    return arrays


def describe(array: NDArray[Any]) -> str:
    """Type and sizes in words."""
    return f"{array.dtype} {'x'.join(map(str, array.shape)) or 'number'}"
