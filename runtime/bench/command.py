"""`dvmsr bench`: on pictures for models of DVMSR, on arrays where one is another network."""

from collections.abc import Sequence
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.runtime.bench.settings import Settings
from dvmsr.runtime.spec import is_foreign


def run(
    specs: Sequence[str],
    sizes: Sequence[str],
    batches: Sequence[int],
    inputs: Sequence[str],
    inputs_file: Path | None,
    settings: Settings,
) -> None:
    """The command: measure, write, print.

    Raises:
        UsageError: for options of the other kind of benchmark.
    """
    foreign = next((spec for spec in specs if is_foreign(spec)), None)
    if foreign is None:
        if inputs or inputs_file is not None:
            raise UsageError(
                "models of DVMSR are measured on pictures; give --size and --batch in place of "
                f"{'--input' if inputs else '--inputs'}"
            )
        from dvmsr.runtime.bench.bench import run as on_pictures

        on_pictures(specs, sizes, batches, settings)
        return
    if sizes or batches:
        raise UsageError(
            f"{foreign} is measured on arrays, as networks other than DVMSR are; leave out "
            f"{'--size' if sizes else '--batch'}, and give --input or --inputs"
        )
    from dvmsr.runtime.bench.tensors import run as on_arrays

    on_arrays(specs, inputs, inputs_file, settings)
