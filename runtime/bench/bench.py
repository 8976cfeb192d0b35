"""How fast models of DVMSR are: backends, sizes and batches measured in turns."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

from dvmsr.data.natural_image import natural_image
from dvmsr.runtime import memory
from dvmsr.runtime.bench.measurement import Measurement
from dvmsr.runtime.bench.probe import Shape, probe
from dvmsr.runtime.bench.report import check_targets, finish
from dvmsr.runtime.bench.settings import Settings
from dvmsr.runtime.bench.timing import interleave, summarise
from dvmsr.runtime.spec import load
from dvmsr.runtime.upscaler import Upscaler
from dvmsr.utils.console import warnings_to
from dvmsr.utils.progress import progress_bar
from dvmsr.utils.sizes import parse_size
from dvmsr.utils.threads import bounded

DEFAULT_SIZE = (256, 256)


def measure(
    specs: Sequence[str],
    upscalers: Sequence[Upscaler],
    shape: Shape,
    rounds: int,
    warmup: int,
    threads: int | None,
    trust_engine: bool = False,
    time_limit: float | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Measurement]:
    """All models in turns on one input shape; ratios are to the first.

    Args:
        specs, upscalers: the models as named, and loaded.
        threads, trust_engine, time_limit: with which they were.
        progress: called `len(specs) * (rounds + warmup + 1)` times.

    Raises:
        DvmsrError: if a network does not take the shape, or there is not enough memory.
    """
    batch, height, width = shape
    probes = []
    for spec, upscaler in zip(specs, upscalers, strict=True):
        memory.check(upscaler.config, upscaler.computes, batch * height, width, "the input")
        probes.append(probe(spec, threads, shape, trust_engine, time_limit))
        progress()
    image = natural_image((1, height, width)).repeat(batch, axis=0)
    contestants = [partial(upscaler.network.seconds, image) for upscaler in upscalers]
    seconds = interleave(contestants, rounds, warmup, progress)
    return [
        Measurement(
            *(name, upscaler.model, upscaler.backend, upscaler.precision, upscaler.network.clock),
            *(tuple(own), summarise(own, seconds[0]), found, upscaler.network.details()),
            *(shape, upscaler.scale),
        )
        for name, upscaler, own, found in zip(specs, upscalers, seconds, probes, strict=True)
    ]


def run(
    specs: Sequence[str],
    sizes: Sequence[str],
    batches: Sequence[int],
    settings: Settings,
) -> None:
    """What the command does with models of DVMSR: measure, write, print."""
    check_targets(settings)
    asked = [parse_size("--size", size) for size in sizes]
    results: list[Measurement] = []
    with warnings_to():
        threads = bounded(settings.threads)
        opening = threads, settings.trust_engine, settings.time_limit
        upscalers = [load(spec, *opening) for spec in specs]
        shapes = _shapes(upscalers, asked, batches)
        runs = len(shapes) * len(specs) * (settings.rounds + settings.warmup + 1)
        with progress_bar("measuring", runs) as advance:
            for shape in shapes:
                results += measure(
                    *(specs, upscalers, shape, settings.rounds, settings.warmup),
                    *(*opening, advance),
                )
    finish(results, specs, threads, settings)


def _shapes(
    upscalers: Sequence[Upscaler], sizes: Sequence[tuple[int, int]], batches: Sequence[int]
) -> list[Shape]:
    """Every batch with every size; by default what suits the first model that says so."""
    usual = next(
        (u.network.usual_shape for u in upscalers if any(u.network.usual_shape)), (None,) * 3
    )
    batch, height, width = (
        own or default for own, default in zip(usual, (1, *DEFAULT_SIZE), strict=True)
    )
    return [
        (batch, height, width)
        for (height, width), batch in product(sizes or [(height, width)], batches or [batch])
    ]
