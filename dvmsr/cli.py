"""The `dvmsr` command line. What a command needs is imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from dvmsr.runtime.commands import bench, parity, serve
from dvmsr.train.command import distill, train
from dvmsr.utils.cli.app import run_app
from dvmsr.utils.cli.options import (
    DEFAULT_TIME_LIMIT,
    HELP,
    AsJson,
    Offline,
    Overwrite,
    TimeLimit,
    TrustEngine,
    Version,
)
from dvmsr.weights.registry import CHECKPOINT_NAMES, MODELS

EXAMPLES = """\b
Examples:
  dvmsr info student
  dvmsr eval photos --model bicubic --model student
  dvmsr compare photo.png --against bicubic --html page.html
  dvmsr train --data photos/ -o run --minutes 100
  dvmsr parity model.pth model.onnx
  dvmsr bench student student:portable
  dvmsr lam photo.png --window 160,120,16
  dvmsr serve --open
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
            help=f"bicubic, a .safetensors, .pth or .onnx file, or a name ({', '.join(MODELS)}); "
            "repeatable. See dvmsr compare --help for the .onnx files of other networks."
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
    as_json: AsJson = False,
    offline: Offline = False,
    side_by_side: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write pictures there: bicubic, models, original."),
    ] = None,
    overwrite: Overwrite = False,
    time_limit: TimeLimit = DEFAULT_TIME_LIMIT,
    trust_engine: TrustEngine = False,
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
    from dvmsr.eval.evaluate import run

    run(
        *(folders, model, backend, scale, csv, as_json, side_by_side, overwrite),
        *(trust_engine, time_limit),
    )


def compare(
    image: Annotated[
        Path,
        typer.Argument(metavar="IMAGE", help="A picture: the original, or with --low the input."),
    ],
    html: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help=f"A name ({', '.join(MODELS)}), a .safetensors, .pth or .onnx file, or a method "
            "of --against.",
        ),
    ] = "student",
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD,...",
            help="bicubic, models, and .onnx files of other networks; repeatable.",
            show_default="bicubic",
        ),
    ] = None,
    low: Annotated[
        bool, typer.Option("--low", help="IMAGE is the input; there is no original and no figure.")
    ] = False,
    crop: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Take only this part of IMAGE, in its pixels."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    offline: Offline = False,
    time_limit: TimeLimit = DEFAULT_TIME_LIMIT,
    trust_engine: TrustEngine = False,
) -> None:
    """Show what methods make of a picture, in one HTML file that works offline.

    IMAGE is the original: it is reduced by the models' scale as MATLAB does (bicubic), every method
    enlarges that, and PSNR and SSIM are those of dvmsr eval. With --low every method enlarges IMAGE
    itself.

    The page has a slider between two pictures, all pictures side by side with common zoom and
    position, and their amplified difference; by mouse, touch or keyboard. Pictures are in it
    without loss, up to 16 megapixels each.

    Another network's .onnx file takes one RGB picture (1, 3, h, w) and gives one s times larger.
    FILE@255 says that its values go from 0 to 255, FILE@1 to 1; without either that is tried out.

    \b
    Examples:
      dvmsr compare photo.png --html page.html
      dvmsr compare photo.png --against bicubic,rlfn.onnx@255 --html page.html
      dvmsr compare large.jpg --crop 1200,800,1024,768 --html page.html
      dvmsr compare small.jpg --low --model run/best.safetensors --html page.html
    """
    from dvmsr.eval.compare import run

    run(
        *(image, model, against or ["bicubic"], html, not low, crop, overwrite, as_json),
        *(trust_engine, time_limit),
    )


def info(
    model: Annotated[
        str,
        typer.Argument(
            help=f"Preset or name ({', '.join(MODELS)}), a .safetensors, .pth, .onnx or .engine "
            "file, or package.module:factory."
        ),
    ],
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Height and width of the input in pixels.",
            show_default="256x256",
        ),
    ] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Show a network's layers, parameters and operations.

    Of a network other than DVMSR: inputs, outputs, operators, scans and parameters of an ONNX file,
    the parameters of what a factory returns, what an engine runs on.

    \b
    Examples:
      dvmsr info student
      dvmsr info run/best.safetensors --size 339x510
      dvmsr info student.onnx --json
      dvmsr info vim.onnx
    """
    from dvmsr.info import run

    run(model, size, as_json)


def lam(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="What is to be enlarged.")],
    window: Annotated[
        str,
        typer.Option(
            metavar="X,Y,SIZE",
            help="The square of the result to explain: first column and row and side, in pixels "
            "of the result; SIZE may be left out (16).",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(CHECKPOINT_NAMES)}, a .safetensors or .pth checkpoint, or "
            "package.module:factory; repeatable.",
            show_default="student",
        ),
    ] = None,
    patch: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000_000,
            metavar="N",
            help="Side of the square around the window that is taken from the image, in its "
            "pixels; a large number takes the whole image.",
        ),
    ] = 64,
    steps: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="Steps of the integral.")
    ] = 50,
    sigma: Annotated[
        float,
        typer.Option(
            min=0.1, max=100, metavar="PIXELS", help="Blur of the image where the path begins."
        ),
    ] = 1.2,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The picture.", show_default="IMAGE_lam.png"
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Show which pixels of an image a network uses for a window of its result.

    Draws local attribution maps (integrated gradients along a path of ever less blurred images)
    and prints the diffusion index: the higher, the more pixels take part. Diffusion indices are
    comparable for the same image, window, patch and settings only. The defaults are those of the
    method's authors.

    package.module:factory is any PyTorch network: a function without arguments that returns a
    ready torch.nn.Module, weights loaded, which maps (b, 3, h, w) in [0, 1] to
    (b, 3, s*h, s*w). It is looked for among the installed packages, then in the current folder,
    and is run as the code that it is.

    \b
    Examples:
      dvmsr lam photo.png --window 160,120,16
      dvmsr lam photo.png --window 160,120 --model run/best.safetensors -o map.png
      dvmsr lam photo.png --window 160,120 --model student --model my_networks:rlfn
      dvmsr lam photo.png --window 160,120 --patch 100000 --json
    """
    from dvmsr.lam.lam import run

    run(image, window, model or [], patch, steps, sigma, output, overwrite, as_json)


def build() -> typer.Typer:
    """The application with its commands."""
    app = typer.Typer(
        no_args_is_help=True, add_completion=False, rich_markup_mode=None, context_settings=HELP
    )

    @app.callback(epilog=EXAMPLES)
    def root(version: Version = False) -> None:
        """Mamba super-resolution: train, measure and inspect networks.

        dvmsr-export turns a checkpoint into an ONNX file, dvmsr-infer enlarges pictures.
        """

    app.command("train")(train)
    app.command("distill")(distill)
    app.command("eval")(evaluate)
    app.command("compare")(compare)
    app.command("info")(info)
    app.command("parity")(parity)
    app.command("bench")(bench)
    app.command("lam")(lam)
    app.command("serve")(serve)
    return app


def main() -> None:
    """Entry point of the console script."""
    run_app(build)
