"""Whether two networks of any kind compute the same from the same arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvmsr.errors import ParityError, UsageError
from dvmsr.runtime.backends.table import BACKENDS
from dvmsr.runtime.backends.tensors import Arrays, TensorNetwork
from dvmsr.runtime.inputs import describe, find_inputs
from dvmsr.runtime.parity.difference import measure_arrays
from dvmsr.runtime.parity.limits import ArrayLimits, default_array_limits, parse_limits
from dvmsr.runtime.parity.side import Side
from dvmsr.runtime.spec import open_tensors
from dvmsr.utils.console import prints_aside, say, stdout_console, warnings_to
from dvmsr.utils.json_text import finite

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class OutputParity:
    """How far one output is apart."""

    output: str
    """Its name in the first network."""
    shape: tuple[int, ...]
    max_abs: float
    relative: float
    """Largest absolute difference over the largest magnitude in the second network's output."""


@dataclass(frozen=True)
class ArrayReport:
    """The comparison of two networks."""

    a: Side
    b: Side
    limits: ArrayLimits
    inputs: dict[str, str]
    """Type and shape of what the first network was given."""
    outputs: tuple[OutputParity, ...]

    @property
    def broken(self) -> list[str]:
        """What is beyond the limits, in words; a NaN always is."""
        return [
            f"{output.output}: {words}"
            for output in self.outputs
            for words in self.limits.broken(output.relative, output.max_abs)
        ]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values; what is not finite is null."""
        result: dict[str, Any] = finite({**asdict(self), "passed": not self.broken})
        return result


def compare(
    a: TensorNetwork, b: TensorNetwork, inputs_a: Arrays, inputs_b: Arrays
) -> list[OutputParity]:
    """Every output of both networks.

    Outputs are matched by name, or where each network has one. A file's `x_out` is `x`: so an
    export calls an output whose name something else has.

    Raises:
        UsageError: if the outputs have other names, or no numbers.
        ParityError: if one has another shape.
        DvmsrError: if a network fails.
    """
    ours, theirs = a(**inputs_a), b(**inputs_b)
    names = _matched(list(ours), list(theirs))
    if names is None:
        raise UsageError(
            f"{a.model} gives {', '.join(ours) or 'nothing'} and {b.model} "
            f"{', '.join(theirs) or 'nothing'}; compare networks whose outputs have the same names"
        )
    found = []
    for name, other in names.items():
        output, truth = ours[name], theirs[other]
        for array, network in ((output, a), (truth, b)):
            if array.dtype.kind not in "biuf":
                raise UsageError(
                    f"the output {name} of {network.model} is {array.dtype}, which cannot be "
                    "compared; leave it out of the network"
                )
        if output.shape != truth.shape:
            raise ParityError(
                f"the output {name} has shape {output.shape} from {a.model} ({a.backend}) and "
                f"{truth.shape} from {b.model} ({b.backend}); a size may be fixed in one"
            )
        apart = measure_arrays(output, truth)
        found.append(OutputParity(name, output.shape, apart.max_abs, apart.relative))
    return found


def _matched(ours: list[str], theirs: list[str]) -> dict[str, str] | None:
    """For each of our names the one of theirs that means the same; None if not all have one."""
    if len(ours) == len(theirs) == 1:
        return {ours[0]: theirs[0]}
    plain = {re.sub("(_out)+$", "", name): name for name in theirs if name not in ours}
    found = {
        name: name if name in theirs else plain.get(re.sub("(_out)+$", "", name)) for name in ours
    }
    known = {name: other for name, other in found.items() if other is not None}
    return known if len(known) == len(set(known.values())) == len(ours) == len(theirs) else None


def run(
    spec_a: str,
    spec_b: str,
    shapes: Sequence[str],
    file: Path | None,
    limits: str | None,
    threads: int | None,
    trust_engine: bool,
    time_limit: float,
    as_json: bool,
) -> None:
    """What the command does with networks of others: compare and print.

    Raises:
        ParityError: if the difference is beyond the limits, after everything is printed.
    """
    asked = parse_limits(limits, ArrayLimits) if limits is not None else None
    with warnings_to(), prints_aside():
        a, b = (open_tensors(s, threads, trust_engine, time_limit) for s in (spec_a, spec_b))
        given = find_inputs((a, b), shapes, file)
        outputs = compare(a, b, *given)
    on_gpu = any(BACKENDS[network.backend].on_gpu for network in (a, b))
    report = ArrayReport(
        Side(a.model, a.backend, a.precision),
        Side(b.model, b.backend, b.precision),
        asked or default_array_limits((a.precision, b.precision), on_gpu),
        {name: describe(array) for name, array in given[0].items()},
        tuple(outputs),
    )
    if as_json:
        print(json.dumps(report.to_dict(), indent=2, allow_nan=False))
    else:
        _print(report)
    if report.broken:
        raise ParityError(f"{report.a} and {report.b} differ: {', '.join(report.broken)}")


def _print(report: ArrayReport) -> None:
    say(f"a: {report.a}")
    say(f"b: {report.b}")
    say(f"inputs: {', '.join(f'{name} {what}' for name, what in report.inputs.items())}")
    stdout_console().print(_table(report))
    if not report.broken:
        print(f"within the limits: {report.limits}")


def _table(report: ArrayReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("output", no_wrap=True)
    for heading in ("shape", "max abs", "relative"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.outputs:
        shape = "x".join(map(str, row.shape)) or "one number"
        table.add_row(escape(row.output), shape, f"{row.max_abs:.2e}", f"{row.relative:.2e}")
    return table
