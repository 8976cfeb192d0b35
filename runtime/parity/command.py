"""`dvmsr parity`: on pictures for two models of DVMSR, on arrays where one is another network."""

from collections.abc import Sequence
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.runtime.spec import is_foreign


def run(
    spec_a: str,
    spec_b: str,
    images: Sequence[Path],
    inputs: Sequence[str],
    inputs_file: Path | None,
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
        UsageError: for options of the other kind of comparison.
        ParityError: if the difference is beyond the limits, after everything is printed.
    """
    foreign = next((spec for spec in (spec_a, spec_b) if is_foreign(spec)), None)
    if foreign is None:
        if inputs or inputs_file is not None:
            raise UsageError(
                "two models of DVMSR are compared on pictures; give --images in place of "
                f"{'--input' if inputs else '--inputs'}"
            )
        from dvmsr.runtime.parity.parity import run as on_pictures

        on_pictures(
            *(spec_a, spec_b, images, limits, layers, heat_map),
            *(threads, trust_engine, time_limit, overwrite, as_json),
        )
        return
    options = {"--images": images, "--layers": layers, "--heat-map": heat_map}
    for option, value in options.items():
        if value:
            raise UsageError(
                f"{foreign} is compared on arrays, as networks other than DVMSR are; leave out "
                f"{option}, and give --input or --inputs"
            )
    from dvmsr.runtime.parity.tensors import run as on_arrays

    on_arrays(
        *(spec_a, spec_b, inputs, inputs_file, limits),
        *(threads, trust_engine, time_limit, as_json),
    )
