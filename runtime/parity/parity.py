"""Whether two networks, on any two backends, compute the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import ParityError, UsageError
from dvmsr.eval.metrics import psnr_y
from dvmsr.runtime import memory
from dvmsr.runtime.images.arrays import from_planes
from dvmsr.runtime.images.encode import encode
from dvmsr.runtime.parity.difference import measure
from dvmsr.runtime.parity.drift import (
    FP32_DRIFT,
    HALF_DRIFT,
    LayerDifference,
    common_layers,
    compare_layers,
    first_drift,
)
from dvmsr.runtime.parity.limits import Limits, default_limits, parse_limits
from dvmsr.runtime.parity.samples import Sample, find_samples, synthetic_sample
from dvmsr.runtime.parity.side import Side
from dvmsr.runtime.spec import load
from dvmsr.runtime.upscaler import Upscaler
from dvmsr.utils.atomic import check_target, write_atomically
from dvmsr.utils.console import notice, say, stdout_console, warnings_to
from dvmsr.utils.json_text import finite
from dvmsr.utils.progress import progress_bar

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class ImageParity:
    """How far the two outputs are apart for one image."""

    image: str
    shape: tuple[int, int, int]
    """Batch, height and width of the input."""
    max_abs: float
    psnr: float
    """In dB, peak 1; infinite for equal outputs."""
    delta_psnr: float | None
    """PSNR of the first against the truth, less that of the second: luma, rounded to 8 bits, a
    border of the scale's width left out. None without truth."""


@dataclass(frozen=True)
class Overall:
    """Largest max abs, lowest PSNR and mean change of PSNR over all images; a NaN stays one."""

    max_abs: float
    psnr: float
    delta_psnr: float | None


@dataclass(frozen=True)
class ParityReport:
    """The comparison of two networks."""

    a: Side
    b: Side
    limits: Limits
    images: tuple[ImageParity, ...]
    layers: tuple[LayerDifference, ...] = ()
    """Of the image where the outputs are farthest apart; empty if not asked for."""
    drift_limit: float = HALF_DRIFT
    """Relative difference of a layer that counts as drift."""

    @property
    def overall(self) -> Overall:
        """What the limits are for."""
        deltas = [image.delta_psnr for image in self.images if image.delta_psnr is not None]
        return Overall(
            max_abs=float(np.max([image.max_abs for image in self.images])),
            psnr=float(np.min([image.psnr for image in self.images])),
            delta_psnr=float(np.mean(deltas)) if deltas else None,
        )

    @property
    def broken(self) -> list[str]:
        """What is beyond the limits, in words."""
        overall = self.overall
        return self.limits.broken(overall.max_abs, overall.psnr, overall.delta_psnr)

    @property
    def first_drift(self) -> str | None:
        """The first layer where the two drift apart."""
        return first_drift(list(self.layers), self.drift_limit)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values; what is not finite, as the PSNR of equal outputs, is
        null."""
        values: dict[str, Any] = {
            "a": asdict(self.a),
            "b": asdict(self.b),
            "limits": asdict(self.limits),
            "passed": not self.broken,
            "overall": asdict(self.overall),
            "images": [asdict(image) for image in self.images],
        }
        if self.layers:
            values["first_drift"] = self.first_drift
            values["drift_limit"] = self.drift_limit
            values["layers"] = [asdict(layer) for layer in self.layers]
        result: dict[str, Any] = finite(values)
        return result


@dataclass(frozen=True)
class Worst:
    """The image where the outputs are farthest apart, and both outputs (B, 3, s*H, s*W)."""

    sample: Sample
    a: NDArray[np.float32]
    b: NDArray[np.float32]


def compare(
    a: Upscaler,
    b: Upscaler,
    samples: Iterable[Callable[[], Sample]],
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[ImageParity], Worst]:
    """Both networks on every image, without rounding or clipping.

    Args:
        samples: at least one.
        progress: called after each image.

    Raises:
        UsageError: if the scales differ.
        DvmsrError: if an image cannot be read or does not fit, or a network fails.
    """
    if a.scale != b.scale:
        raise UsageError(
            f"{a.model} enlarges by {a.scale} and {b.model} by {b.scale}; compare equal scales"
        )
    found: list[ImageParity] = []
    worst: Worst | None = None
    largest = -math.inf
    for read in samples:
        sample = read()
        batch, height, width = sample.shape
        for side in (a, b):
            memory.check(side.config, side.computes, batch * height, width, sample.name)
        ours, theirs = a.network(sample.planes), b.network(sample.planes)
        apart = measure(ours, theirs)
        if not (apart.max_abs <= largest or math.isnan(largest)):
            worst, largest = Worst(sample, ours, theirs), apart.max_abs
        delta = _delta_psnr(sample, ours, theirs, a.scale)
        found.append(ImageParity(sample.name, sample.shape, apart.max_abs, apart.psnr, delta))
        progress()
    if worst is None:
        raise UsageError("there is no image to compare on")
    return found, worst


def run(
    spec_a: str,
    spec_b: str,
    images: Sequence[Path],
    limits: str | None,
    layers: bool,
    heat_map: Path | None,
    threads: int | None,
    trust_engine: bool,
    time_limit: float,
    overwrite: bool,
    as_json: bool,
) -> None:
    """The command: compare, print, draw.

    Raises:
        ParityError: if the difference is beyond the limits, after everything is printed.
    """
    asked = parse_limits(limits, Limits) if limits is not None else None
    if heat_map is not None:
        if heat_map.suffix.lower() != ".png":
            raise UsageError(f"{heat_map} must end in .png")
        check_target(heat_map, overwrite)
    with warnings_to():
        a, b = (load(spec, threads, trust_engine, time_limit) for spec in (spec_a, spec_b))
        names = common_layers(a.network, b.network) if layers else []
        samples = find_samples(images, a.scale) or [lambda: synthetic_sample(_shape(a, b))]
        with progress_bar("comparing", len(samples)) as advance:
            found, worst = compare(a, b, samples, advance)
        in_layers = compare_layers(a.network, b.network, worst.sample.planes, names)
    precisions = (a.precision, b.precision)
    report = ParityReport(
        Side(a.model, a.backend, a.precision),
        Side(b.model, b.backend, b.precision),
        asked or default_limits(*precisions),
        tuple(found),
        tuple(in_layers),
        FP32_DRIFT if precisions == ("fp32", "fp32") else HALF_DRIFT,
    )
    if report.limits.delta_psnr is not None and report.overall.delta_psnr is None:
        raise UsageError("a limit on delta-psnr needs --images with a folder that has HR/ in it")
    if heat_map is not None:
        from dvmsr.runtime.parity.heat_map import draw

        sides = [replace(side, model=Path(side.model).name) for side in (report.a, report.b)]
        lines = [worst.sample.name, f"a: {sides[0]}", f"b: {sides[1]}"]
        picture = draw(worst.a, worst.b, lines)
        write_atomically(heat_map, encode(picture, heat_map), overwrite)
        notice(f"{heat_map}: {worst.sample.name}, where the two differ most")
    if as_json:
        print(json.dumps(report.to_dict(), indent=2, allow_nan=False))
    else:
        _print(report)
    if report.broken:
        drift = f"; they drift apart at {report.first_drift}" if report.first_drift else ""
        raise ParityError(f"{report.a} and {report.b} differ: {', '.join(report.broken)}{drift}")


def _shape(a: Upscaler, b: Upscaler) -> tuple[int | None, int | None, int | None]:
    """Batch, height and width that suit both, as far as one of them asks for any."""
    batch, height, width = (
        ours or theirs
        for ours, theirs in zip(a.network.usual_shape, b.network.usual_shape, strict=True)
    )
    return batch, height, width


def _delta_psnr(
    sample: Sample, ours: NDArray[np.float32], theirs: NDArray[np.float32], scale: int
) -> float | None:
    if sample.truth is None:
        return None
    try:
        first, second = (
            psnr_y(from_planes(output, np.uint8), sample.truth, border=scale)
            for output in (ours, theirs)
        )
    except UsageError as error:
        raise UsageError(f"{sample.name} cannot be measured: {error}") from None
    return first - second if first != second else 0.0  # both may be infinite


def _print(report: ParityReport) -> None:
    console = stdout_console()
    say(f"a: {report.a}")
    say(f"b: {report.b}")
    console.print(_image_table(report))
    if report.layers:
        console.print(_layer_table(report))
        where = report.first_drift or "none"
        say(f"first layer with a relative difference beyond {report.drift_limit:g}: {where}")
    if not report.broken:
        print(f"within the limits: {report.limits}")


def _image_table(report: ParityReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("image", no_wrap=True)
    for heading in ("input", "max abs", "PSNR dB", "ΔPSNR dB"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows: list[tuple[str, str, ImageParity | Overall]] = [
        (escape(image.image), "x".join(map(str, image.shape)), image) for image in report.images
    ]
    if len(rows) > 1:
        rows.append(("overall", "", report.overall))
    for name, size, row in rows:
        delta = "" if row.delta_psnr is None else f"{row.delta_psnr:+.4f}"
        table.add_row(name, size, f"{row.max_abs:.2e}", f"{row.psnr:.2f}", delta)
    return table


def _layer_table(report: ParityReport) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("layer", no_wrap=True)
    for heading in ("max abs", "relative"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in report.layers:
        table.add_row(layer.name, f"{layer.max_abs:.2e}", f"{layer.relative:.2e}")
    return table
