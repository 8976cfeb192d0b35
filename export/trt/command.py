"""`dvmsr-export trt`: a checkpoint or ONNX file as a TensorRT engine."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dvmsr.utils.cli.options import AsJson, Offline, Overwrite
from dvmsr.utils.console import data
from dvmsr.weights.registry import MODELS

if TYPE_CHECKING:
    from dvmsr.export.trt.request import Sizes

EXAMPLES = """\b
Examples:
  dvmsr-export trt student --fp16
  dvmsr-export trt half.onnx --max 1080x1920 --batch 1,1,4 -o half.engine
  dvmsr-export trt a.pth --fp16 --target rtx --compute-capability 8.6 --compute-capability 8.9
  dvmsr-export trt mambair.onnx --opt 1x3x256x256 --max 4x3x512x512
"""


def trt_command(
    model: Annotated[
        Path,
        typer.Argument(
            help=f"A name ({', '.join(MODELS)}), a .safetensors or .pth checkpoint, or "
            "an .onnx file, of another network, too."
        ),
    ],
    fp32: Annotated[
        bool, typer.Option("--fp32", help="Compute in FP32; the default for a checkpoint.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Compute in half precision.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16.")] = False,
    smallest: Annotated[
        list[str] | None,
        typer.Option(
            "--min", metavar="HxW|[NAME:]SHAPE", help="Smallest input.", show_default="16x16"
        ),
    ] = None,
    usual: Annotated[
        list[str] | None,
        typer.Option(
            "--opt", metavar="HxW|[NAME:]SHAPE", help="Tuned for this.", show_default="256x256"
        ),
    ] = None,
    largest: Annotated[
        list[str] | None,
        typer.Option(
            "--max", metavar="HxW|[NAME:]SHAPE", help="Largest input.", show_default="1024x1024"
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="MIN,OPT,MAX", help="Images at once.", show_default="1,1,1"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE.engine", help="By default in the current folder."
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="gpu|rtx",
            help="TensorRT, for this machine's GPU, or TensorRT for RTX, without any.",
        ),
    ] = "gpu",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CC",
            help="With --target rtx: what the engine is for, such as 8.9; repeatable.",
            show_default="8.6, 8.9 and 12.0",
        ),
    ] = None,
    no_plugin: Annotated[
        bool,
        typer.Option("--no-plugin", help="Let TensorRT run the operators' ONNX bodies; slow."),
    ] = False,
    embed_plugin: Annotated[
        bool,
        typer.Option(
            "--embed-plugin",
            help="Put the plugin library into the engine; implies --version-compatible.",
        ),
    ] = False,
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help="Also for later TensorRTs of the same major."),
    ] = False,
    workspace: Annotated[
        int | None,
        typer.Option(
            metavar="MIB", min=1, help="Scratch memory allowed.", show_default="all of the GPU's"
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read and update measurements, for faster builds."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Build a TensorRT engine of MODEL, with the plugin for its two operators.

    The plugin is compiled when it is first needed. Beside FILE.engine, a plan that every TensorRT
    tool loads, FILE.engine.json tells what it is. A second call with equal inputs returns at once,
    but builds anew with --overwrite.

    Of a network of others, --min, --opt and --max take the whole shape of the only input, or of an
    input by its name, repeatedly; what is not given follows from the example that it was exported
    with.
    """
    from dvmsr.errors import UsageError
    from dvmsr.export.trt.build import build
    from dvmsr.export.trt.request import Request

    precisions = {"fp32": fp32, "fp16": fp16, "bf16": bf16}
    chosen = [name for name, wanted in precisions.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"choose one of --{' and --'.join(chosen)}")
    request = Request(
        model=model,
        output=output,
        precision=chosen[0] if chosen else None,
        min=parse_sizes("--min", smallest or ()),
        opt=parse_sizes("--opt", usual or ()),
        max=parse_sizes("--max", largest or ()),
        batch=parse_batch(batch),
        target=target,
        compute_capabilities=tuple(compute_capability or ()),
        plugin=not no_plugin,
        embed_plugin=embed_plugin,
        version_compatible=version_compatible,
        workspace_mib=workspace,
        timing_cache=timing_cache,
        overwrite=overwrite,
    )
    report = build(request)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        data(report.path)


def parse_sizes(option: str, texts: Sequence[str]) -> Sizes | None:
    """`270x480` -> (270, 480); `x:1x3x64x64` -> {"x": (1, 3, 64, 64)}; None for none. Of
    those for one name, or without any, the last counts.

    Raises:
        UsageError: for anything but positive numbers of up to 9 digits, or for shapes with names
            and without.
    """
    from dvmsr.errors import UsageError

    named: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, shape = text.rpartition(":")
        if not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*", shape.lower()):
            raise UsageError(
                f"{option} takes HEIGHTxWIDTH, such as 270x480, or of a network of others a shape, "
                f"such as 1x3x64x64 or x:1x3x64x64, not {text!r}"
            )
        named[name] = tuple(map(int, shape.lower().split("x")))
    if "" in named and len(named) > 1:
        raise UsageError(f"{option} is given with names and without; give each shape as NAME:SHAPE")
    return named.get("", named or None)


def parse_batch(text: str | None) -> tuple[int, int, int] | None:
    """`1,2,4` -> (1, 2, 4); `2` -> (2, 2, 2)

    Raises:
        UsageError: for anything else than one or three positive integers of up to 4 digits.
    """
    from dvmsr.errors import UsageError

    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,3})(?:,([1-9][0-9]{0,3}),([1-9][0-9]{0,3}))?", text)
    if not match:
        raise UsageError(f"--batch takes MIN,OPT,MAX, such as 1,1,4, not {text!r}")
    low = int(match[1])
    return low, int(match[2] or low), int(match[3] or low)
