"""Options that several command lines share."""

from pathlib import Path
from typing import Annotated

import typer

import dvmsr
from dvmsr.utils import offline, time_limit


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dvmsr {dvmsr.__version__}")
        raise typer.Exit


def _forbid_fetching(wanted: bool) -> None:
    if wanted:
        offline.ask()


HELP = {"help_option_names": ["-h", "--help"]}
"""Settings of an application and its commands."""

Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        callback=_forbid_fetching,
        help=f"Fetch no weights; {offline.VARIABLE}=1 says the same.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_TIME_LIMIT = time_limit.DEFAULT
TimeLimit = Annotated[
    float,
    typer.Option(
        min=0.001,
        max=1e9,
        metavar="SECONDS",
        help="Most for one run of an .onnx file, which may have no end.",
    ),
]
TrustEngine = Annotated[
    bool,
    typer.Option(
        "--trust-engine",
        help="Run the code for the processor that an engine carries (--embed-plugin, "
        "--version-compatible): whoever made it acts with your rights.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", show_default="the backend's choice, usually all cores"),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Have a Ray cluster compute: auto, local or ray://host:port (pip install "
        "'dvmsr[ray]').",
        show_default=False,
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="How many in the cluster, each with --threads processors (1 unless given), or a "
        "GPU. Default: all.",
        show_default=False,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SIZES[:TYPE]",
        help="For networks other than DVMSR: random values of these sizes, such as 1x3x64x64 or "
        "mask=1x64:int64; repeatable. Default: what a model was made with.",
        show_default=False,
    ),
]
InputsFile = Annotated[
    Path | None,
    typer.Option("--inputs", metavar="FILE.npz", help="The same: arrays by name."),
]
