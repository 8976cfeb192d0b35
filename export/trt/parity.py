"""What is computed once before anyone relies on an engine: the model, before it is built, and the
engine against it."""

from collections.abc import Callable
from pathlib import Path

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, ParityError
from dvmsr.runtime.backends.trt.profiles import Profile, Shape

SHAPE: Shape = (1, 96, 128)
"""Of the picture to compare on, as far as the profile takes it."""


PATIENCE = 120.0
"""Seconds for computing a model on the processor, which may have no end."""


def check_finite(
    model: Path, source: Path, profile: Profile, progress: Callable[[str], None]
) -> None:
    """Compute the model once on the processor: an engine cannot make numbers of what is none.

    Where that is not possible, it is said.

    Args:
        model: an ONNX file with its functions.
        source: what it was made from.

    Raises:
        IncompatibleModelError: if values are not finite.
    """
    import numpy as np

    from dvmsr.data.natural_image import natural_image
    from dvmsr.kernels import cpu
    from dvmsr.runtime import memory
    from dvmsr.runtime.backends.onnxrt.network import OnnxNetwork
    from dvmsr.runtime.backends.onnxrt.onnx_file import read_header

    batch, height, width = _shape(profile)
    native = cpu.library_path() is not None and read_header(model).has_operators
    backend = "native" if native else "portable"
    try:
        network = OnnxNetwork(model, backend, threads=None)
        network.time_limit = PATIENCE
        memory.check(network.config, backend, batch * height, width, name=str(source))
        output = network(natural_image((batch, height, width)))
    except DvmsrError as error:
        reason = str(error).replace(str(model), str(source))
        if "--time-limit" in reason:
            reason = f"it took more than {PATIENCE:g} s"
        progress(f"warning: the model was not computed on the processor first ({reason})")
        return
    if not np.isfinite(output).all():
        precision = network.precision
        remedy = "try --bf16 or --fp32" if precision == "fp16" else "train or export it again"
        raise IncompatibleModelError(
            f"{source} computes values in {precision} that are not finite, so no engine was built; "
            f"{remedy}"
        )


def check(engine: Path, source: Path, profile: Profile, progress: Callable[[str], None]) -> None:
    """Compare the engine on this machine's GPU with the checkpoint by PyTorch, or with the ONNX
    file on the processor.

    Where what runs engines is missing, that is said and nothing is compared.

    Raises:
        ParityError: if the two are further apart than the engine's precision explains.
        DvmsrError: if the engine does not run.
    """
    from dvmsr.runtime.parity.limits import default_limits
    from dvmsr.runtime.parity.parity import compare
    from dvmsr.runtime.parity.samples import synthetic_sample
    from dvmsr.runtime.upscaler import Upscaler

    try:
        ours = Upscaler.from_file(engine, trust_engine=True)  # just built here
    except MissingComponentError as error:
        progress(f"warning: the engine was not compared with {source} ({error})")
        return
    theirs = Upscaler.from_file(source)
    shape = _shape(profile)
    sample = synthetic_sample(shape)
    ((difference,), _) = compare(ours, theirs, [lambda: sample])
    found = f"max abs {difference.max_abs:.1e}, {difference.psnr:.1f} dB"
    progress(f"engine against {theirs.backend} at {'x'.join(map(str, shape))}: {found}")
    limits = default_limits(ours.precision, theirs.precision)
    if limits.broken(difference.max_abs, difference.psnr):
        raise ParityError(
            f"the engine was not written: it differs from {source}, {found}, where {limits} is "
            "allowed; try --fp32, and please report this"
        )


def _shape(profile: Profile) -> Shape:
    """`SHAPE`, as far as the profile takes it."""
    batch, height, width = (
        min(max(low, size), high)
        for low, size, high in zip(profile.min, SHAPE, profile.max, strict=True)
    )
    return batch, height, width
