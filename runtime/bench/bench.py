"""How fast networks are: several models, backends, sizes and batches measured in turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvmsr.data.natural_image import natural_image
from dvmsr.errors import UsageError
from dvmsr.runtime import memory
from dvmsr.runtime.bench import machine
from dvmsr.runtime.bench.measurement import Measurement
from dvmsr.runtime.bench.probe import Shape, probe
from dvmsr.runtime.bench.timing import interleave, summarise
from dvmsr.runtime.images.codec import encode
from dvmsr.runtime.spec import load
from dvmsr.runtime.upscaler import Upscaler
from dvmsr.utils.atomic import check_target, write_atomically
from dvmsr.utils.console import notice, say, stdout_console, warnings_to
from dvmsr.utils.progress import progress_bar
from dvmsr.utils.sizes import parse_size
from dvmsr.utils.threads import bounded

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_SIZE = (256, 256)
MIB = 2**20


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
        memory.check(upscaler.config, upscaler.backend, batch * height, width, "the input")
        probes.append(probe(spec, threads, shape, trust_engine, time_limit))
        progress()
    image = natural_image((1, height, width)).repeat(batch, axis=0)
    contestants = [partial(upscaler.network.seconds, image) for upscaler in upscalers]
    seconds = interleave(contestants, rounds, warmup, progress)
    return [
        Measurement(
            *(name, upscaler.model, upscaler.backend, upscaler.precision, shape, upscaler.scale),
            *(upscaler.network.clock, tuple(own), summarise(own, seconds[0]), found),
            upscaler.network.details(),
        )
        for name, upscaler, own, found in zip(specs, upscalers, seconds, probes, strict=True)
    ]


def run(
    specs: Sequence[str],
    sizes: Sequence[str],
    batches: Sequence[int],
    rounds: int,
    warmup: int,
    threads: int | None,
    trust_engine: bool,
    time_limit: float,
    output: Path | None,
    plot: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """The command: measure, write, print."""
    _check_targets(output, plot, overwrite)
    asked = [parse_size("--size", size) for size in sizes]
    results: list[Measurement] = []
    with warnings_to():
        threads = bounded(threads)
        upscalers = [load(spec, threads, trust_engine, time_limit) for spec in specs]
        shapes = _shapes(upscalers, asked, batches)
        runs = len(shapes) * len(specs) * (rounds + warmup + 1)
        with progress_bar("measuring", runs) as advance:
            for shape in shapes:
                results += measure(
                    *(specs, upscalers, shape, rounds, warmup),
                    *(threads, trust_engine, time_limit, advance),
                )
    report = {
        "machine": machine.describe(),
        "threads": threads,
        "rounds": rounds,
        "warmup": warmup,
        "base": specs[0],
        "results": [result.to_dict() for result in results],
    }
    if output is not None:
        write_atomically(output, (json.dumps(report, indent=1) + "\n").encode(), overwrite)
    if plot is not None:
        from dvmsr.runtime.bench.plot import draw

        write_atomically(plot, encode(draw(results, headline(report)), plot), overwrite)
    if as_json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        _print(results, report)
    if len({result.clock for result in results}) > 1:
        notice(
            "note: CUDA events leave out the copies to and from the GPU, the wall clock does not"
        )


def headline(report: dict[str, Any]) -> str:
    """One line about the machine and the run."""
    facts = report["machine"]
    threads = f"{report['threads']} thread(s)" if report["threads"] else "threads as each chooses"
    versions = [
        f"{name} {facts[name]}" for name in ("onnxruntime", "torch", "tensorrt") if name in facts
    ]
    gpu = [facts["gpu"]["name"]] if facts["gpu"] else []
    processor = f"{facts['processor']} ({facts['processors_usable']} processors)"
    return ", ".join([*gpu, processor, threads, *versions, f"{report['rounds']} rounds"])


def _check_targets(output: Path | None, plot: Path | None, overwrite: bool) -> None:
    for path, suffix in ((output, ".json"), (plot, ".png")):
        if path is not None:
            if path.suffix.lower() != suffix:
                raise UsageError(f"{path} must end in {suffix}")
            check_target(path, overwrite)


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


def _print(results: Sequence[Measurement], report: dict[str, Any]) -> None:
    console = stdout_console()
    say(headline(report))
    for shape in dict.fromkeys(result.shape for result in results):
        batch, height, width = shape
        print(f"\n{height}x{width} pixels, batch {batch}")
        console.print(_table([result for result in results if result.shape == shape]))


def _table(results: Sequence[Measurement]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for heading in ("model", "backend", "precision"):
        table.add_column(heading, no_wrap=True)
    figures = ("ratio", "p50 ms", "p95 ms", "p99 ms", "images/s", "out MP/s", "peak MiB", "load s")
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        times, peak = result.times, result.peak_bytes
        table.add_row(
            escape(result.name),
            result.backend,
            result.precision,
            f"{times.ratio:.2f}",
            *(f"{ms:.4g}" for ms in (times.p50_ms, times.p95_ms, times.p99_ms)),
            f"{result.images_per_second:.4g}",
            f"{result.megapixels_per_second:.4g}",
            "" if peak is None else f"{peak / MIB:.0f}",
            f"{result.probe.load_seconds:.2f}",
        )
    return table
