"""`dvmsr-export plugin-path`: where the TensorRT plugin libraries are."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dvmsr.utils.cli.options import AsJson
from dvmsr.utils.console import data

EXAMPLES = """\b
Examples:
  dvmsr-export plugin-path --build
  dvmsr-export plugin-path --build --arch 8.9 --arch 9.0 --tensorrt-root /opt/TensorRT
  trtexec --onnx=half.onnx --dynamicPlugins=$(dvmsr-export plugin-path --pure)
  dvmsr-export plugin-path --json
"""


def plugin_path(
    build: Annotated[
        bool, typer.Option("--build", help="Compile the libraries unless that was done before.")
    ] = False,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CC",
            help="With --build: a compute capability, such as 8.9; repeatable.",
            show_default="7.5 to 12.0 and later",
        ),
    ] = None,
    tensorrt_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --build: the folder of TensorRT, for its headers."),
    ] = None,
    tensorrt: Annotated[
        int | None,
        typer.Option(
            metavar="MAJOR",
            min=10,
            help="Major version of TensorRT.",
            show_default="that of --tensorrt-root or of the installed one, or 10",
        ),
    ] = None,
    pure: Annotated[
        bool, typer.Option("--pure", help="Print this one only: for --dynamicPlugins.")
    ] = False,
    self_registering: Annotated[
        bool,
        typer.Option("--self-registering", help="Print this one only: for --staticPlugins."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the TensorRT plugin libraries, the pure and the self-registering one.

    They are compiled once, from sources that come with dvmsr, into the user's cache; nvcc and CMake
    come with `pip install "dvmsr[plugin]"` where they are missing. Neither a GPU nor TensorRT is
    needed to compile. TensorRT for RTX takes the pure library for TensorRT 10. The environment
    variable DVMSR_TENSORRT_PLUGIN names one that was compiled elsewhere.
    """
    from dvmsr.errors import MissingComponentError, UsageError
    from dvmsr.export.plugin import build as plugin_build
    from dvmsr.runtime.backends.trt import plugin_library
    from dvmsr.runtime.backends.trt.version import installed_major

    if (arch or tensorrt_root) and not build:
        raise UsageError("--arch and --tensorrt-root say how to compile; add --build")
    if pure and self_registering:
        raise UsageError("leave out both --pure and --self-registering to print both libraries")
    if tensorrt_root:
        major = plugin_build.major_of(tensorrt_root)
        if tensorrt not in (None, major):
            raise UsageError(f"{tensorrt_root} is TensorRT {major}, not {tensorrt}")
    else:
        major = tensorrt or installed_major() or plugin_build.FETCHED_MAJORS[0]
    if build:
        architectures = arch or plugin_build.ARCHITECTURES
        library = plugin_build.build(major, architectures, tensorrt_root)
    else:
        library = plugin_library.require(major)
    if self_registering and library.self_registering is None:
        raise MissingComponentError(
            f"there is no self-registering library beside {library.pure}; compile both with "
            "`dvmsr-export plugin-path --build`"
        )
    if as_json:
        print(json.dumps(library.to_dict(), indent=2))
        return
    if not self_registering:
        data(library.pure)
    if not pure and library.self_registering:
        data(library.self_registering)
