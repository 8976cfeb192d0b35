"""What is computed once before anyone relies on an engine of a network of others: the ONNX file,
before the engine is built, and the engine against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, ParityError
from dvmsr.export.trt.parity import PATIENCE
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.tensors import Arrays, Example, Port
from dvmsr.runtime.backends.trt.profiles import InputProfile, in_words
from dvmsr.utils.arrays import random_array

if TYPE_CHECKING:
    from dvmsr.runtime.backends.onnxrt.tensors import OnnxTensors
    from dvmsr.runtime.parity.difference import ArrayDifference


def check_finite(
    path: Path, profiles: Mapping[str, InputProfile], say: Callable[[str], None]
) -> None:
    """Compute the file once on the processor.

    Where that is not possible, or it is not known which values its inputs have, it is said.

    Raises:
        IncompatibleModelError: if values are not finite.
    """
    import numpy as np

    try:
        network = _on_processor(path)
        outputs = network(**made_inputs(network.inputs, profiles, network.examples))
    except DvmsrError as error:
        say(f"warning: the model was not computed on the processor first ({_reason(error)})")
        return
    wrong = [name for name, array in outputs.items() if not np.isfinite(array).all()]
    if not wrong:
        return
    told = f"{path} computes values of {', '.join(wrong)} in {network.precision} that are not"
    if network.inputs.keys() <= network.examples.keys():
        remedy = "train or export it again"
        if network.precision == "fp16":
            remedy = "export it without --fp16"
        raise IncompatibleModelError(f"{told} finite, so no engine was built; {remedy}")
    say(f"warning: {told} finite for inputs from 0 to 1; check whether it takes others")


def check(
    engine: Path,
    path: Path,
    profiles: Mapping[str, InputProfile],
    say: Callable[[str], None],
) -> None:
    """Compare the engine on this machine's GPU with the file on the processor.

    A GPU adds FP32 in another order, which stays far below the limit, while products in TF32 do
    not; of half precision, networks were 5e-4 to 1e-3 of the largest value from FP32, and the two
    round at different places.

    Where what runs engines is missing, or the processor does not compute the file, that is said and
    nothing is compared.

    Raises:
        ParityError: if the two are further apart than the engine's precision explains.
        DvmsrError: if the engine does not run.
    """
    from dvmsr.runtime.backends.trt.tensors import EngineTensors
    from dvmsr.runtime.parity.limits import default_array_limits

    try:
        ours = EngineTensors(engine, trust=True)  # just built here
    except MissingComponentError as error:
        say(f"warning: the engine was not compared with {path} ({error})")
        return
    try:
        theirs = _on_processor(path)
        inputs = made_inputs(theirs.inputs, profiles, theirs.examples)
        truth = theirs(**inputs)
    except DvmsrError as error:
        say(f"warning: the engine was not compared with {path} ({_reason(error)})")
        return
    found, worst = _differences(ours(**inputs), truth)
    shapes = ", ".join(f"{name} {in_words(array.shape)}" for name, array in inputs.items())
    say(f"engine against {theirs.backend} at {shapes}: {'; '.join(found)}")
    limits = default_array_limits((ours.precision, theirs.precision), on_gpu=True)
    if broken := limits.broken(worst.relative, worst.max_abs):
        raise ParityError(
            f"the engine was not written: it differs from {path} by {broken[0]}; export it in "
            "FP32, and please report this"
        )


def made_inputs(
    inputs: Mapping[str, Port],
    profiles: Mapping[str, InputProfile],
    examples: Mapping[str, Example],
) -> Arrays:
    """Inputs of the shapes that a model was exported with, as far as the profiles take them: values
    uniform in the example's range, whole numbers drawn from it; without one from 0 to 1."""
    import numpy as np

    generator = np.random.default_rng(0)
    made: Arrays = {}
    for name, port in inputs.items():
        profile = profiles[name]
        example = examples.get(name) or Example(profile.opt)
        bounds = zip(profile.min, example.shape, profile.max, strict=True)
        shape = tuple(min(max(low, size), high) for low, size, high in bounds)
        dtype = port.held or "float32"
        made[name] = random_array(shape, dtype, generator, example.low, example.high)
    return made


def _reason(error: DvmsrError) -> str:
    if "--time-limit" in str(error):
        return f"it took more than {PATIENCE:g} s"
    return str(error)


def _on_processor(path: Path) -> OnnxTensors:
    from dvmsr.runtime.backends.onnxrt.tensors import OnnxTensors

    backend = "native" if cpu.library_path() is not None else "portable"
    network = OnnxTensors(path, backend, threads=None)
    network.time_limit = PATIENCE
    return network


def _differences(ours: Arrays, theirs: Arrays) -> tuple[list[str], ArrayDifference]:
    """How far each output is from its truth, in words; the largest difference of fractions. Whole
    numbers, which may turn on a rounding, are told alone."""
    from dvmsr.runtime.parity.difference import ArrayDifference, measure_arrays

    found, worst = [], ArrayDifference(0.0, 0.0)
    for name, truth in theirs.items():
        if ours[name].shape != truth.shape:
            raise ParityError(
                f"the engine was not written: it gives {name} the shape {ours[name].shape}, and "
                f"the model {truth.shape}; please report this"
            )
        if truth.dtype.kind != "f":
            found.append(f"{name} {int((ours[name] != truth).sum())} of {truth.size} values differ")
            continue
        apart = measure_arrays(ours[name], truth)
        found.append(f"{name} {apart.relative:.1e} of the largest")
        worst = max(worst, apart, key=lambda difference: difference.relative)
    return found, worst
