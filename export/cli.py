"""`dvmsr-export`: from a network to deployable files."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dvmsr.errors import UsageError
from dvmsr.export.network.command import check_checkpoint_named, export_named
from dvmsr.export.network.export import NetworkReport
from dvmsr.export.onnx.export import DEFAULT_OPSET, ExportReport, export_onnx
from dvmsr.export.plugin import command as plugin_command
from dvmsr.export.plugin import cuda_command
from dvmsr.export.triton import command as triton_command
from dvmsr.export.trt import command as trt_command
from dvmsr.utils.cli.app import run_app
from dvmsr.utils.cli.options import HELP, AsJson, Offline, Overwrite, Version
from dvmsr.utils.console import data
from dvmsr.utils.paths import is_import_path
from dvmsr.utils.sizes import parse_shape
from dvmsr.weights.registry import CHECKPOINT_NAMES

EXAMPLES = """\b
Examples:
  dvmsr-export onnx student
  dvmsr-export onnx mine.safetensors -o half.onnx --fp16
  dvmsr-export onnx mine.safetensors --streaming
  dvmsr-export onnx paper --static 1x270x480 --json
  dvmsr-export onnx student --inline
  dvmsr-export onnx networks:mambair --input 1x3x64x64 --dynamic 0:batch,2:height,3:width
  dvmsr-export onnx networks:vim --input 1x3x224x224 --dynamic 0 --fp16
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
    app.command("triton", epilog=triton_command.EXAMPLES)(triton_command.triton_command)
    app.command("plugin-path", epilog=plugin_command.EXAMPLES)(plugin_command.plugin_path)
    return app


def overview(version: Version = False) -> None:
    """Turn trained networks into files for deployment."""


def onnx_command(
    source: Annotated[
        str,
        typer.Argument(
            help=f"A name ({', '.join(CHECKPOINT_NAMES)}), a .safetensors checkpoint, "
            "an official .pth, or package.module:factory, which returns any PyTorch network."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="By default the source's name in the current folder."),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[NAME=]SIZES[:TYPE]",
            help="Of a factory's network: an example input, such as 1x3x64x64; repeat it for more.",
        ),
    ] = None,
    inputs_file: Annotated[
        Path | None,
        typer.Option("--inputs", metavar="FILE.npz", help="The same: arrays by name."),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            "--dynamic",
            metavar="[NAME=]AXIS[:LABEL],...",
            help="The same: axes whose size may change, such as 0:batch,2:height,3:width.",
        ),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="A graph typed in half precision.")] = False,
    opset: Annotated[
        int, typer.Option(help="ONNX opset, 17 to 24; of a factory's network, 18 to 24.")
    ] = DEFAULT_OPSET,
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
    offline: Offline = False,
) -> None:
    """Write SOURCE as an ONNX file and compare it with PyTorch.

    The file runs in ONNX Runtime with the native operators that come with dvmsr, and without them,
    more slowly, in runtimes that know ONNX functions; with --inline in others, such as OpenVINO,
    too. If it differs from PyTorch by more than 2e-4 (FP32), or
    agrees to less than 60 dB (FP16), the exit code is 3 and no file is left.

    A network of others is compared at several sizes of each dynamic axis, to 1e-5 of the largest
    value (FP16: 1e-2); what it calls of mamba-ssm and causal-conv1d becomes dvmsr's operators.
    """
    if is_import_path(source):
        refuse(source, static=static, streaming=streaming)
        network = export_named(
            *(source, output, inputs or (), inputs_file, dynamic or (), opset, verify, overwrite),
            precision="fp16" if fp16 else "fp32",
            inline=inline,
        )
        _print(network, as_json)
        return
    check_checkpoint_named(source)
    refuse(source, input=inputs, inputs=inputs_file, dynamic=dynamic)
    checkpoint = Path(source)
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
    _print(report, as_json)


def refuse(source: str, **options: object) -> None:
    """Options that this kind of source does not have.

    Raises:
        UsageError: if one was given.
    """
    for name, value in options.items():
        if value:
            raise UsageError(f"--{name} does not go with {source}; leave it out")


def _print(report: ExportReport | NetworkReport, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        data(report.path)
