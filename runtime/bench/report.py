"""What `dvmsr bench` writes and prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dvmsr.errors import UsageError
from dvmsr.runtime.bench import machine
from dvmsr.runtime.bench.measurement import Timed
from dvmsr.runtime.bench.settings import Settings
from dvmsr.runtime.images.encode import encode
from dvmsr.utils.atomic import check_target, write_atomically
from dvmsr.utils.console import notice, say, stdout_console

if TYPE_CHECKING:
    from rich.table import Table

MIB = 2**20


def check_targets(settings: Settings) -> None:
    """Whether figures and a picture may be written there.

    Raises:
        UsageError: if not.
    """
    for path, suffix in ((settings.output, ".json"), (settings.plot, ".png")):
        if path is not None:
            if path.suffix.lower() != suffix:
                raise UsageError(f"{path} must end in {suffix}")
            check_target(path, settings.overwrite)


def finish(
    results: Sequence[Timed], specs: Sequence[str], threads: int | None, settings: Settings
) -> None:
    """Write and print the results of all models, of which ratios are to the first.

    Args:
        threads: as many as were used, None where each model chose.
    """
    report = {
        "machine": machine.describe(),
        "threads": threads,
        "rounds": settings.rounds,
        "warmup": settings.warmup,
        "base": specs[0],
        "results": [result.to_dict() for result in results],
    }
    overwrite = settings.overwrite
    if settings.output is not None:
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(settings.output, text.encode(), overwrite)
    if settings.plot is not None:
        from dvmsr.runtime.bench.plot import draw

        picture = encode(draw(results, headline(report)), settings.plot)
        write_atomically(settings.plot, picture, overwrite)
    if settings.as_json:
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


def _print(results: Sequence[Timed], report: dict[str, Any]) -> None:
    console = stdout_console()
    say(headline(report))
    for title in dict.fromkeys(result.title for result in results):
        say(f"\n{title}")
        console.print(_table([result for result in results if result.title == title]))


def _table(results: Sequence[Timed]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for heading in ("model", "backend", "precision"):
        table.add_column(heading, no_wrap=True)
    figures = ("ratio", "p50 ms", "p95 ms", "p99 ms", *results[0].rates, "peak MiB", "load s")
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
            *(f"{rate:.4g}" for rate in result.rates.values()),
            "" if peak is None else f"{peak / MIB:.0f}",
            f"{result.probe.load_seconds:.2f}",
        )
    return table
