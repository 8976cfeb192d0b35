"""An engine's first run: against the model that it was made from, before anyone relies on it."""

from collections.abc import Callable
from pathlib import Path

from dvmsr.errors import MissingComponentError, ParityError
from dvmsr.runtime.backends.trt.engine_file import Profile, Shape

SHAPE: Shape = (1, 96, 128)
"""Of the picture to compare on, as far as the profile takes it."""


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
    shape = [
        min(max(low, size), high)
        for low, size, high in zip(profile.min, SHAPE, profile.max, strict=True)
    ]
    sample = synthetic_sample((shape[0], shape[1], shape[2]))
    ((difference,), _) = compare(ours, theirs, [lambda: sample])
    found = f"max abs {difference.max_abs:.1e}, {difference.psnr:.1f} dB"
    progress(f"engine against {theirs.backend} at {'x'.join(map(str, shape))}: {found}")
    limits = default_limits(ours.precision, theirs.precision)
    if limits.broken(difference.max_abs, difference.psnr):
        raise ParityError(
            f"the engine was not written: it differs from {source}, {found}, where {limits} is "
            "allowed; try --fp32, and please report this"
        )
