"""`dvmsr-export triton`: networks as a model repository of NVIDIA's Triton Inference Server."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from dvmsr.utils.cli.options import AsJson, Offline, Overwrite
from dvmsr.utils.console import data, notice
from dvmsr.weights.registry import MODELS

EXAMPLES = """\b
Examples:
  dvmsr-export triton student -o models/
  dvmsr-export triton mambair.onnx -o models/ --mounted-at /models
  dvmsr-export triton half.engine -o models/ --max-batch 4 --instances 2
  dvmsr-export triton student student-x2 -o models/ --backend python --json
"""


def triton_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help=f"A name ({', '.join(MODELS)}), an .onnx file, of another network, too, a "
            ".safetensors or .pth checkpoint, or a TensorRT .engine.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="The repository; other models stay."),
    ],
    backend: Annotated[
        str,
        typer.Option(
            metavar="auto|tensorrt|onnxruntime|python",
            help="What computes in the server; auto: by the kind of file, of a name python.",
        ),
    ] = "auto",
    name: Annotated[
        str | None, typer.Option(help="Of the only model.", show_default="the file's")
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Most inputs in a batch.",
            show_default="an engine's most, else 8",
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(metavar="N", min=1, help="How often each model is loaded.")
    ] = 1,
    mounted_at: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the server finds the repository, in a container, say.",
            show_default="where it is written",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server.

    An engine is served by the TensorRT backend, which loads the plugin before; an ONNX file by the
    ONNX Runtime backend with dvmsr's operators; a name or a checkpoint by the Python backend, in
    whose Python dvmsr is installed. That one takes pictures of any size, by strips: MODEL-pictures
    takes the bytes of a picture's file and gives those of the enlarged one, as dvmsr-infer does it.
    """
    from dvmsr.export.triton.export import export_triton
    from dvmsr.export.triton.layout import Request

    place = mounted_at or output.absolute()
    request = Request(place, max_batch, instances)
    report = export_triton(models, output, request, backend, name, overwrite)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    data(report.repository)
    words = ["tritonserver", f"--model-repository={place}", *report.server_options]
    notice(f"serve it with: {shlex.join(words)}")
