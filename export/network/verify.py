"""An exported network against the one in PyTorch, at every size that it promises."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dvmsr.errors import (
    DvmsrError,
    IncompatibleModelError,
    ParityError,
    UsageError,
    summary,
)
from dvmsr.export.network.decisions import Decision, fixed_at
from dvmsr.export.network.inputs import Inputs
from dvmsr.export.network.lines import line_in, line_of
from dvmsr.export.network.missing import StableSort
from dvmsr.export.network.outputs import flatten
from dvmsr.export.network.randomness import Draws
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.network import open_on, options_for
from dvmsr.runtime.parity.difference import measure_arrays
from dvmsr.utils.threads import bounded

LIMITS = {"fp32": 1e-5, "fp16": 1e-2}
"""Largest difference relative to the largest magnitude of an output, by the file's precision."""
ROUNDING = 4.0
"""Or, of a file in FP32, as many times what PyTorch itself in FP32 is from FP64, the file being as
near to that."""
MOST_ROUNDING = 1e-2
"""A network that is further off by itself computes nothing that could be compared."""
SIZES = 3
"""So many sizes of each dynamic axis are tried, and two of one that is called batch."""
_CANDIDATES = (2.0, 0.5, 1.5, 0.75, 1.25, 3.0, 0.25, 4.0)
"""Times the example's size."""

Arrays = list[NDArray[np.generic]]


Truths = dict[tuple[tuple[str, int], ...], tuple[dict[str, Tensor], Arrays]]
"""Inputs and PyTorch's outputs by the sizes of the dynamic axes, the example's first."""


@dataclass(frozen=True)
class Check:
    """One comparison."""

    backend: str
    """`native` or `portable`."""
    sizes: dict[str, int]
    """Of the dynamic axes."""
    difference: float
    """The largest of any output, relative to the largest magnitude of that output."""
    rounding: float | None = None
    """How far PyTorch in FP32 is from FP64, where that is what the difference comes from."""

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
        own = "" if self.rounding is None else f"; PyTorch is {self.rounding:.1e} from FP64 itself"
        return (
            f"{self.backend}{f' at {sizes}' if sizes else ''}: {self.difference:.1e} of the "
            f"largest{own}"
        )


def verify(
    path: Path,
    name: str,
    annotated: onnx.ModelProto,
    truths: Truths,
    decisions: Sequence[Decision],
    exact: Callable[[Mapping[str, Tensor]], Arrays | None],
    progress: Callable[[str], None],
    precision: str = "fp32",
    backends: Sequence[str] = ("native", "portable"),
) -> list[Check]:
    """Compare a file with the network that it was made from: on the first backend at every size, on
    others at the smallest.

    Args:
        name: what messages call the file.
        annotated: the same graph whose nodes still tell the line that they came from.
        decisions: what the network decided by sizes, which explains a difference.
        exact: the network's outputs in FP64, asked for where a file in FP32 is further off
            than `LIMITS` allow.

    Raises:
        ParityError: if an output differs by more than that.
        IncompatibleModelError: if the file fails at a size that PyTorch takes.
        DvmsrError: if one is native and dvmsr was built without its native operators.
    """
    if "native" in backends and cpu.library_path() is None:
        raise DvmsrError(f"an export is verified with dvmsr's native operators; {cpu.REMEDY}")
    example = next(iter(truths))
    smallest = min(truths, key=lambda sizes: math.prod(dict(sizes).values()))
    found = []
    limit = LIMITS[precision]
    for backend in backends:
        session = _session(path, backend)
        for sizes, (given, expected) in truths.items():
            if backend != backends[0] and sizes != smallest:
                continue
            cause = _cause(decisions, sizes == example)
            actual = _run(session, annotated, given, dict(sizes), cause)
            difference = _difference(actual, expected)
            rounding = None
            if not difference <= limit and precision == "fp32":
                rounding = _rounding(actual, expected, exact(given))
            check = Check(backend, dict(sizes), difference, rounding)
            progress(str(check))
            if [a.shape for a in actual] != [e.shape for e in expected]:
                raise IncompatibleModelError(
                    f"the graph gives outputs of other shapes than PyTorch at {_words(sizes)}: "
                    f"{cause}"
                )
            if not difference <= limit and rounding is None:
                if precision == "fp16":
                    cause = _HALF_OR_OTHERWISE
                raise ParityError(
                    f"{name} differs from PyTorch by {check.difference:.1e} of the largest value "
                    f"({backend}, {_words(sizes)}) where {limit:g} is allowed, so it was not "
                    f"written: {cause}"
                )
            found.append(check)
    return found


def _rounding(actual: Arrays, expected: Arrays, exact: Arrays | None) -> float | None:
    """How far PyTorch is from FP64, if the file is hardly further."""
    if exact is None:
        return None
    own = _difference(expected, exact)
    return own if own < MOST_ROUNDING and _difference(actual, exact) <= ROUNDING * own else None


_HALF_OR_OTHERWISE = (
    "half precision may not hold its values: export it in FP32, and if that differs, too, try "
    "another --opset"
)


def _cause(decisions: Sequence[Decision], example: bool) -> str:
    """What may make a graph wrong at some sizes, those of the example or others, and the remedy."""
    branches = list(dict.fromkeys(decision.line for decision in decisions if not decision.fixes))
    if place := fixed_at(decisions):
        return f"a size is fixed{place}; compute there with // and sizes as they are, without int()"
    if example:
        return "an operator computes otherwise there; try another --opset"
    if branches:
        return (
            f"the network decides by sizes at {' and '.join(branches[:2])}, and a file holds one "
            "branch; do what is right for every size, such as padding by 0, or give an example of "
            "the other branch"
        )
    return "a size is fixed in the network, as constants do it; compute with // and tensor sizes"


def _words(sizes: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{label} {size}" for label, size in sizes) or "its only size"


def find_truths(
    module: nn.Module, inputs: Inputs, progress: Callable[[str], None], several: bool = True
) -> Truths:
    """What the network itself makes of the example, and of other sizes of each dynamic axis.

    Args:
        several: if not, of the example alone.

    Raises:
        IncompatibleModelError: if its output is random, or it takes fewer than three sizes of an
            axis (two of a batch).
    """
    found: Truths = {}
    base = inputs.axes
    try:
        outputs = outputs_of(module, inputs.tensors)
    except DvmsrError:
        raise
    except Exception as error:
        raise UsageError(
            f"the network fails on its example inputs{_at(error)} ({summary(error)}); give inputs "
            "of the sizes and types that it takes"
        ) from None
    if not all(np.isfinite(array).all() for array in outputs if array.dtype.kind in "fc"):
        raise IncompatibleModelError(
            "the network's output for the example is not finite, so no file can be compared with "
            "it; give an example for which it is"
        )
    sorts = StableSort()
    with Draws() as draws:
        again = outputs_of(module, inputs.tensors, sorts)
    if draws.lines:
        raise IncompatibleModelError(
            f"the network draws random numbers at {draws.lines[0]}, which a file does otherwise; "
            "take that out for inference"
        )
    if (off := _difference(again, outputs)) > 1e-6:
        raise IncompatibleModelError(
            f"the network's own output differs by {off:.1e} from run to run: it changes its own "
            "state, so no file can be compared with it; take that out for inference"
        )
    for line in dict.fromkeys(sorts.lines):
        progress(
            f"the network leaves the order of equal values open at {line}: the file keeps it, as "
            "PyTorch does with stable=True"
        )
    found[tuple(base.items())] = inputs.tensors, outputs
    if not several:
        return found
    others: dict[str, int] = {}
    for label, size in base.items():
        wanted = 2 if label == "batch" else SIZES
        taken = [size]
        for candidate in _sizes_like(size):
            if len(taken) == wanted:
                break
            sizes = {**base, label: candidate}
            given = inputs.resized(sizes)
            try:
                outputs = outputs_of(module, given)
            except Exception as error:
                progress(f"left out {label} {candidate}: PyTorch fails there ({summary(error)})")
                continue
            taken.append(candidate)
            others.setdefault(label, candidate)
            found[tuple(sizes.items())] = given, outputs
        if len(taken) < wanted:
            alike = " or ".join(name for name in base if name != label and base[name] == size)
            one = f"give {alike} the same label if it must be as large, " if alike else ""
            raise IncompatibleModelError(
                f"PyTorch itself takes only {', '.join(map(str, taken))} of the sizes tried for "
                f"{label}; {one}leave {label} out of the dynamic axes, or give an example of a "
                "size that has usable halves and multiples"
            )
    if len(others) > 1:  # all at once
        given = inputs.resized(others)
        together = tuple({**base, **others}.items())
        try:
            found[together] = given, outputs_of(module, given)
        except Exception as error:
            progress(f"left out {_words(together)}: PyTorch fails there ({summary(error)})")
    return found


def _sizes_like(size: int) -> Iterator[int]:
    seen = {size}
    # One more first: what a network does with sizes that nothing divides is a branch of its own.
    steps = [size + 1, *(round(size * factor) for factor in _CANDIDATES), size + 2]
    for candidate in steps:
        if candidate >= 1 and candidate not in seen:
            seen.add(candidate)
            yield candidate


def outputs_of(
    module: nn.Module, given: Mapping[str, Tensor], sorts: StableSort | None = None
) -> Arrays:
    """What the network returns, in the order of `flatten`."""
    return list(named_outputs(module, given, sorts).values())


def named_outputs(
    module: nn.Module, given: Mapping[str, Tensor], sorts: StableSort | None = None
) -> dict[str, NDArray[np.generic]]:
    """The same by name.

    Raises:
        DvmsrError: if the network ends the process.
    """
    try:
        with torch.no_grad(), sorts or StableSort():
            tensors = flatten(module(**{name: tensor.clone() for name, tensor in given.items()}))
    except SystemExit as error:
        raise DvmsrError(
            f"the network ends the process (sys.exit) where it computes{_at(error)}; take that out"
        ) from None
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _at(error: BaseException) -> str:
    place = line_in(error.__traceback__)
    return f" at {place}" if place else ""


def _session(path: Path, backend: str) -> onnxruntime.InferenceSession:
    try:
        return open_on(backend, str(path), options_for(backend, bounded(None)), path)
    except IncompatibleModelError as error:
        raise IncompatibleModelError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the exported graph ({error}); "
            "try another --opset"
        ) from None


def _run(
    session: onnxruntime.InferenceSession,
    annotated: onnx.ModelProto,
    given: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    cause: str,
) -> Arrays:
    halves = {value.name: value.type == "tensor(float16)" for value in session.get_inputs()}
    feeds = {  # none that the network does not use
        name: tensor.half().numpy() if halves[name] else tensor.numpy()
        for name, tensor in given.items()
        if name in halves
    }
    try:
        return list(session.run(None, feeds))
    except Exception as error:
        text = str(error)
        node = next((node for node in annotated.graph.node if f"'{node.name}'" in text), None)
        where = ", ".join(f"{label} {size}" for label, size in sizes.items())
        place = line_of(node) if node is not None else ""
        raise IncompatibleModelError(
            f"the graph fails with {where or 'its example'}, which PyTorch takes"
            + (
                f": node {node.name} ({node.op_type})"
                if node is not None
                else f": {summary(error)}"
            )
            + (f" from {place}" if place else "")
            + f": {cause}"
        ) from None


def _difference(actual: Arrays, expected: Arrays) -> float:
    """The largest difference of any output, relative to the largest magnitude of it."""
    if [a.shape for a in actual] != [e.shape for e in expected]:
        return math.inf
    pairs = zip(actual, expected, strict=True)
    return max((measure_arrays(one, other).relative for one, other in pairs), default=0.0)
