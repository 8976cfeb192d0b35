"""`dvmsr-export`: from a checkpoint to deployable files."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dvmsr.export.onnx.export import DEFAULT_OPSET, export_onnx
from dvmsr.export.plugin import command as plugin_command
from dvmsr.export.plugin import cuda_command
from dvmsr.export.trt import command as trt_command
from dvmsr.utils.cli.app import run_app
from dvmsr.utils.cli.options import HELP, AsJson, Overwrite, Version
from dvmsr.utils.console import data
from dvmsr.utils.sizes import parse_shape
from dvmsr.weights.registry import BUNDLED_CHECKPOINTS

EXAMPLES = """\b
Examples:
  dvmsr-export onnx student
  dvmsr-export onnx mine.safetensors -o half.onnx --fp16
  dvmsr-export onnx mine.safetensors --streaming
  dvmsr-export onnx official.pth --static 1x270x480 --json
  dvmsr-export onnx student --inline
"""


def main() -> None:
    """Entry point of the console script."""
    run_app(build_app)


def build_app() -> typer.Typer:
    """The command line as a typer application."""
    app = typer.Typer(
        no_args_is_help=True, add_completion=False, rich_markup_mode=None, context_settings=HELP
    )
    app.callback(epilog=EXAMPLES)(overview)
    app.command("onnx", epilog=EXAMPLES)(onnx_command)
    app.command("cuda-path", epilog=cuda_command.EXAMPLES)(cuda_command.cuda_path)
    app.command("trt", epilog=trt_command.EXAMPLES)(trt_command.trt_command)
    app.command("plugin-path", epilog=plugin_command.EXAMPLES)(plugin_command.plugin_path)
    return app


def overview(version: Version = False) -> None:
    """Turn trained DVMSR checkpoints into files for deployment."""


def onnx_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help=f"A bundled model ({', '.join(BUNDLED_CHECKPOINTS)}), a .safetensors checkpoint, "
            "or an official .pth."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="By default the checkpoint's name in the current folder."
        ),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="A graph typed in half precision.")] = False,
    opset: Annotated[int, typer.Option(help="ONNX opset, 17 to 24.")] = DEFAULT_OPSET,
    static: Annotated[
        str | None, typer.Option(metavar="BxHxW", help="Take inputs of this size only.")
    ] = None,
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming", help="Compute strip by strip: images of any size in bounded memory."
        ),
    ] = False,
    inline: Annotated[
        bool,
        typer.Option(
            "--inline", help="Standard operators alone, for runtimes without ONNX functions."
        ),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare with PyTorch.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write CHECKPOINT as an ONNX file and compare it with PyTorch.

    The file runs in ONNX Runtime with the native operators that come with dvmsr, and without them,
    more slowly, in runtimes that know ONNX functions; with --inline in others, such as OpenVINO,
    too. If it differs from PyTorch by more than 2e-4 (FP32), or
    agrees to less than 60 dB (FP16), the exit code is 3 and no file is left.
    """
    kind = (
        (".fp16" if fp16 else "")
        + (".streaming" if streaming else "")
        + (".inline" if inline else "")
    )
    report = export_onnx(
        checkpoint,
        output or Path(f"{checkpoint.stem}{kind}.onnx"),
        precision="fp16" if fp16 else "fp32",
        opset=opset,
        static_shape=None if static is None else parse_shape("--static", static),
        verify=verify,
        overwrite=overwrite,
        streaming=streaming,
        inline=inline,
    )
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        data(report.path)
