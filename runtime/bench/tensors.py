"""How fast networks of any kind are, on the same arrays, in turns."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dvmsr.runtime.backends.tensors import Arrays, TensorNetwork
from dvmsr.runtime.bench.measurement import ArrayMeasurement
from dvmsr.runtime.bench.probe import probe
from dvmsr.runtime.bench.report import check_targets, finish
from dvmsr.runtime.bench.settings import Settings
from dvmsr.runtime.bench.timing import interleave, summarise
from dvmsr.runtime.inputs import describe, find_inputs
from dvmsr.runtime.spec import open_tensors
from dvmsr.utils import signals
from dvmsr.utils.console import prints_aside, warnings_to
from dvmsr.utils.progress import progress_bar
from dvmsr.utils.threads import bounded


def measure(
    specs: Sequence[str],
    networks: Sequence[TensorNetwork],
    inputs: Sequence[Arrays],
    rounds: int,
    warmup: int,
    threads: int | None,
    trust_engine: bool = False,
    time_limit: float | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[ArrayMeasurement]:
    """All models in turns; ratios are to the first.

    Args:
        specs, networks: the models as named, and opened.
        inputs: the arrays of each.
        threads, trust_engine, time_limit: with which they were opened.
        progress: called `len(specs) * (rounds + warmup + 1)` times.

    Raises:
        DvmsrError: if a network does not take its arrays, or fails.
    """
    probes = []
    with signals.temporary_folder() as folder:
        for spec, arrays in zip(specs, inputs, strict=True):
            file = folder / "inputs.npz"
            np.savez(file, **arrays)  # type: ignore[arg-type]
            probes.append(probe(spec, threads, file, trust_engine, time_limit))
            progress()
    contestants = [
        partial(network.seconds, arrays) for network, arrays in zip(networks, inputs, strict=True)
    ]
    seconds = interleave(contestants, rounds, warmup, progress)
    described = {name: describe(array) for name, array in inputs[0].items()}
    return [
        ArrayMeasurement(
            *(name, network.model, network.backend, network.precision, network.clock),
            *(tuple(own), summarise(own, seconds[0]), found, network.details(), described),
        )
        for name, network, own, found in zip(specs, networks, seconds, probes, strict=True)
    ]


def run(
    specs: Sequence[str],
    shapes: Sequence[str],
    file: Path | None,
    settings: Settings,
) -> None:
    """What the command does with networks of others: measure, write, print."""
    check_targets(settings)
    with warnings_to(), prints_aside():
        threads = bounded(settings.threads)
        opening = threads, settings.trust_engine, settings.time_limit
        networks = [open_tensors(spec, *opening) for spec in specs]
        inputs = find_inputs(networks, shapes, file)
        runs = len(specs) * (settings.rounds + settings.warmup + 1)
        with progress_bar("measuring", runs) as advance:
            results = measure(
                *(specs, networks, inputs, settings.rounds, settings.warmup),
                *(*opening, advance),
            )
    finish(results, specs, threads, settings)
