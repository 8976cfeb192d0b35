"""`dvmsr-export onnx package.module:factory`: what the command does with a network of others."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.export.network.export import NEEDED, NetworkReport, check, export_network
from dvmsr.export.onnx.export import require
from dvmsr.utils import signals
from dvmsr.utils.paths import exists
from dvmsr.weights.registry import find_checkpoint


def check_checkpoint_named(source: str) -> None:
    """Whether what is no import path names a checkpoint.

    Raises:
        UsageError: if not; it may be an import path that is written badly.
        DvmsrError: if that cannot be found out.
    """
    if ":" in source and not exists(Path(source)):
        raise UsageError(
            f"{source} is no import path; write package.module:factory in Python's names, such as "
            "networks:tiny, without a folder or .py"
        )
    find_checkpoint(source)


def export_named(
    name: str,
    output: Path | None,
    shapes: Sequence[str],
    file: Path | None,
    dynamic: Sequence[str],
    opset: int,
    verify: bool,
    overwrite: bool,
    precision: str = "fp32",
    inline: bool = False,
) -> NetworkReport:
    """Export what `package.module:factory` returns, with the stand-ins for mamba-ssm in place.

    Raises:
        UsageError: if an option makes no sense; otherwise as `dvmsr.networks.load` and
            `export_network`.
    """
    kind = ("" if precision == "fp32" else f".{precision}") + (".inline" if inline else "")
    path = output or Path(f"{name.rpartition(':')[2].rpartition('.')[2]}{kind}.onnx")
    if not shapes and file is None:
        raise UsageError(f"{name} needs an example input; give its size, as in --input 1x3x64x64")
    check(path, opset, overwrite)
    # What the network prints is no result. Nothing is half done until the file takes its name.
    with contextlib.redirect_stdout(sys.stderr), signals.at_once():
        require(*NEEDED)
        from dvmsr import compat, networks
        from dvmsr.export.network.inputs import parse_inputs

        with compat.importing():
            module = networks.load(name)
        inputs = parse_inputs(module, shapes, file, dynamic)
        return export_network(
            *(module, inputs.tensors, path, inputs.dynamic, opset, verify, overwrite),
            source=name,
            precision=precision,
            inline=inline,
        )
