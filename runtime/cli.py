"""`dvmsr-infer`: enlarge images."""

from __future__ import annotations

from typing import Annotated

import typer

from dvmsr.cli_options import Version
from dvmsr.cli_support import run_app
from dvmsr.runtime.models import BUNDLED, DEFAULT

EXAMPLES = """\b
Examples:
  dvmsr-infer photo.jpg
  dvmsr-infer photo.jpg -o large.png
  dvmsr-infer holiday/ extra.webp -o enlarged/
  dvmsr-infer photo.jpg --model my_model.onnx --backend portable
  dvmsr-infer *.png -o enlarged/ --json > report.json
  dvmsr-infer panorama.tif --memory 2G
  dvmsr-infer photo.jpg --engine half.engine
"""


def main() -> None:
    """Entry point of the console script."""
    run_app(build_app)


def build_app() -> typer.Typer:
    """The command line as a typer application."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command("dvmsr-infer", epilog=EXAMPLES)(infer)
    return app


def infer(
    inputs: Annotated[
        list[str], typer.Argument(metavar="IN", help="Images, or folders of images.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="A file for one image, a folder for several; by default results lie beside "
            "their images.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help=f"A bundled model ({', '.join(BUNDLED)}), or a .onnx, .safetensors, .pth or "
            ".engine file.",
            show_default=DEFAULT,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A TensorRT engine: --model FILE --backend tensorrt."),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="auto|native|portable|cuda|torch|tensorrt",
            help="ONNX Runtime with native or portable operators or, with cuda, on a GPU; PyTorch "
            "for a checkpoint; TensorRT for an engine.",
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Default: all cores.", show_default=False),
    ] = None,
    strip: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="ROWS",
            help="Compute so many rows at once. Default: what is fast and fits.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most memory for an image, such as 2G. Default: half of what is free.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array with an entry per image.")
    ] = False,
    version: Version = False,
) -> None:
    """Enlarge images with a trained network, on a processor or a GPU.

    Reads and writes PNG, JPEG (quality 95, 4:4:4), WebP (quality 95), TIFF and BMP. A result is
    called NAME_x4 after its image and the network's scale, and keeps the image's format unless OUT
    has an extension that says otherwise. Colour profiles and transparency are kept; EXIF data is
    not, but its orientation is applied.

    Images are computed in strips of rows, with the same result as at once, by models that stream:
    the bundled one, checkpoints, and what dvmsr-export onnx --streaming writes.

    An image that cannot be processed does not stop the others; the exit code is then 1. An
    interrupt (Ctrl-C) keeps the images that are finished, and --json tells of them.
    """
    from dvmsr.errors import UsageError
    from dvmsr.runtime.batch import run
    from dvmsr.sizes import parse_bytes

    if engine is not None:
        if model is not None or backend not in ("auto", "tensorrt"):
            raise UsageError("--engine names model and backend; leave out --model and --backend")
        model, backend = engine, "tensorrt"
    limit = None if memory is None else parse_bytes("--memory", memory)
    run(inputs, output, model or DEFAULT, backend, threads, overwrite, as_json, strip, limit)
