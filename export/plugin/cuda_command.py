"""`dvmsr-export cuda-path`: where the library with the CUDA kernels is."""

from typing import Annotated

import typer

from dvmsr.utils.console import data

EXAMPLES = """\b
Examples:
  dvmsr-export cuda-path --build
  DVMSR_CUDA_LIBRARY=$(dvmsr-export cuda-path --build --arch 8.9 --arch 12.0)
"""


def cuda_path(
    build: Annotated[
        bool, typer.Option("--build", help="Compile the library unless that was done before.")
    ] = False,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CC",
            help="With --build: a compute capability, such as 8.9; repeatable.",
            show_default="that of this machine's GPU",
        ),
    ] = None,
) -> None:
    """Print the library with the CUDA kernels, which `--engine`, `--backend cuda` and PyTorch use.

    It is compiled when it is first needed, from sources that come with dvmsr, into the user's
    cache; nvcc comes with `pip install "dvmsr[plugin]"` where it is missing. Compiled elsewhere,
    it runs on a machine without nvcc: copy it there and name it in the environment variable
    DVMSR_CUDA_LIBRARY.
    """
    from dvmsr.errors import MissingComponentError, UsageError
    from dvmsr.kernels import cuda_build

    if arch and not build:
        raise UsageError("--arch says how to compile; add --build")
    if build:
        data(cuda_build.build(arch) if arch else cuda_build.require())
        return
    path = cuda_build.find()
    if path is None:
        raise MissingComponentError(
            "there is no library with the CUDA kernels for this machine's GPU yet; "
            "build it with `dvmsr-export cuda-path --build`"
        )
    data(path)
