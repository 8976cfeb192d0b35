"""The `dvmsr` command line. What a command needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dvmsr.cli_options import Version
from dvmsr.cli_support import run_app
from dvmsr.runtime.commands import bench, parity
from dvmsr.train.command import distill, train

EXAMPLES = """\b
Examples:
  dvmsr info student
  dvmsr eval photos --model bicubic --model student
  dvmsr train --data photos/ --out run --minutes 100
  dvmsr parity model.pth model.onnx
  dvmsr bench student student:portable
"""


def evaluate(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER",
            help="HR images, or HR/ with LRx<scale>/ beside it; missing reductions are made.",
        ),
    ],
    model: Annotated[
        list[str],
        typer.Option(
            help="bicubic, a .safetensors, .pth or .onnx file, or a bundled model; repeatable."
        ),
    ],
    backend: Annotated[
        str, typer.Option(help="For models other than bicubic: auto, native, portable or torch.")
    ] = "auto",
    scale: Annotated[
        int | None,
        typer.Option(min=1, help="Scale to insist on.", show_default="the models', or 4"),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the scores of every image there.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, every image included, not a table.")
    ] = False,
    side_by_side: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write pictures there: bicubic, models, original."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Measure PSNR and SSIM as the papers do.

    Luma of BT.601, a border of the scale's width left out, SSIM over 11x11 Gaussian windows,
    MATLAB's bicubic reduction, results rounded to 8 bits. An image that cannot be measured does
    not stop the others; the exit code is then 1.

    \b
    Examples:
      dvmsr eval Set5 Set14 --model bicubic --model student.onnx
      dvmsr eval photos --model run/best.safetensors --csv scores.csv
      dvmsr eval Set5 --model student.onnx --backend portable --json
      dvmsr eval Set5 --model student.onnx --side-by-side pictures
    """
    from dvmsr.evaluate import run

    run(folders, model, backend, scale, csv, as_json, side_by_side, overwrite)


def info(
    model: Annotated[
        str, typer.Argument(help="Preset, or a .safetensors, .pth, .onnx or .engine file.")
    ],
    size: Annotated[
        str, typer.Option(metavar="HxW", help="Height and width of the input in pixels.")
    ] = "256x256",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show a network's layers, parameters and operations.

    \b
    Examples:
      dvmsr info student
      dvmsr info run/best.safetensors --size 339x510
      dvmsr info student.onnx --json
    """
    from dvmsr.info import run

    run(model, size, as_json)


def build() -> typer.Typer:
    """The application with its commands."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

    @app.callback(epilog=EXAMPLES)
    def root(version: Version = False) -> None:
        """Mamba super-resolution: train, measure and inspect networks.

        dvmsr-export turns a checkpoint into an ONNX file, dvmsr-infer enlarges pictures.
        """

    app.command("train")(train)
    app.command("distill")(distill)
    app.command("eval")(evaluate)
    app.command("info")(info)
    app.command("parity")(parity)
    app.command("bench")(bench)
    return app


def main() -> None:
    """Entry point of the console script."""
    run_app(build)
