"""`dvmsr parity` and `dvmsr bench` as command lines; what they do is imported when they run."""

from pathlib import Path
from typing import Annotated

import typer

from dvmsr.utils.cli.options import (
    DEFAULT_TIME_LIMIT,
    AsJson,
    Inputs,
    InputsFile,
    Offline,
    Overwrite,
    Threads,
    TimeLimit,
    TrustEngine,
)


def parity(
    a: Annotated[str, typer.Argument(metavar="A", help="A model, and where to run it.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What it is compared with.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="An image, a folder of them, or a test set (HR/ in it); repeatable. Default: a "
            "synthetic picture.",
            show_default=False,
        ),
    ] = None,
    inputs: Inputs = None,
    inputs_file: InputsFile = None,
    limits: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=NUMBER,...",
            help="max-abs, psnr (dB), delta-psnr (dB). Default: max-abs=2e-4, or psnr=60 where "
            "either is not FP32. For networks other than DVMSR: relative, max-abs. Default: "
            "relative=1e-5, 1e-3 with a GPU, 1e-2 with FP16, 5e-2 with BF16.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Compare inside, too: where do they drift apart?")
    ] = False,
    heat_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Draw where the outputs differ, for the worst image."
        ),
    ] = None,
    threads: Threads = None,
    time_limit: TimeLimit = DEFAULT_TIME_LIMIT,
    trust_engine: TrustEngine = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Compare what two models, or one model on two backends, compute.

    A and B are MODEL or MODEL:BACKEND. MODEL is a name that dvmsr-infer knows, a checkpoint (runs
    in PyTorch), a .onnx file or a TensorRT .engine; its precision is the file's. BACKEND is one
    that dvmsr-infer knows: native is the default for a .onnx file, portable runs the operators'
    ONNX bodies, cuda runs on a GPU. MODEL may also be any network: its .onnx file, its .engine, or
    package.module:factory, a function that returns a torch.nn.Module (runs as the code that it
    is). Both then get the same arrays, and every output is compared.

    Outputs are compared before they are rounded or clipped. Beyond the limits the exit code is 3.
    A test set's originals add the change of PSNR against them.

    \b
    Examples:
      dvmsr parity model.pth model.onnx
      dvmsr parity student student:portable
      dvmsr parity half.onnx full.onnx --images Set5 --limits psnr=60,delta-psnr=0.01
      dvmsr parity model.pth half.onnx --layers --heat-map where.png
      dvmsr parity half.engine model.onnx --images photos/
      dvmsr parity networks:vim vim.onnx --input 2x3x224x224
    """
    from dvmsr.runtime.parity.command import run

    run(
        *(a, b, images or [], inputs or [], inputs_file, limits, layers, heat_map),
        *(threads, trust_engine, time_limit, overwrite, as_json),
    )


def bench(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="MODEL or MODEL:BACKEND, as for parity.")
    ],
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HxW",
            help="Height and width of the input; repeatable. Default: what a model was made for, "
            "or 256x256.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=4096,
            metavar="N",
            help="Images at once; repeatable. Default: what a model was made for, or 1.",
            show_default=False,
        ),
    ] = None,
    inputs: Inputs = None,
    inputs_file: InputsFile = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="How often each runs.")
    ] = 20,
    warmup: Annotated[
        int, typer.Option(min=0, max=10_000, metavar="N", help="Rounds before those that count.")
    ] = 3,
    threads: Threads = None,
    time_limit: TimeLimit = DEFAULT_TIME_LIMIT,
    trust_engine: TrustEngine = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.json", help="Write all figures there."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the times of all models.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Measure how fast models and backends are, in turns.

    Every round runs each model once, so that drift of the machine meets all alike; a ratio is the
    median over the rounds of the time relative to the first model's. On a processor the time is
    the wall clock's, on a GPU that of events on its stream, without copies. Peak memory (of the
    process, or of the GPU) and load time come from a process of its own per model.

    With a network other than DVMSR among the models, all run on the same arrays.

    \b
    Examples:
      dvmsr bench student
      dvmsr bench student student:portable --size 64x64 --size 256x256
      dvmsr bench model.pth model.onnx half.onnx --threads 1 --plot times.png
      dvmsr bench model.onnx --batch 1 --batch 8 --rounds 100 -o times.json
      dvmsr bench half.engine model.onnx --rounds 500
      dvmsr bench networks:vim vim.onnx --input 8x3x224x224
    """
    from dvmsr.runtime.bench.command import run
    from dvmsr.runtime.bench.settings import Settings

    settings = Settings(
        *(rounds, warmup, threads, trust_engine, time_limit),
        *(output, plot, overwrite, as_json),
    )
    run(models, size or [], batch or [], inputs or [], inputs_file, settings)
