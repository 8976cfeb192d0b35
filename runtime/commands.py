"""`dvmsr parity`, `bench` and `serve` as command lines; what they do is imported when they run."""

from pathlib import Path
from typing import Annotated

import typer

from dvmsr.runtime.serving.limits import Limits
from dvmsr.utils.cli.options import (
    DEFAULT_TIME_LIMIT,
    AsJson,
    Inputs,
    InputsFile,
    Offline,
    Overwrite,
    RayAddress,
    RayWorkers,
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


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A name, or a .onnx, .safetensors, .pth or .engine file; repeatable, the first is "
            "the default.",
            show_default="student, student-x2, student-x3",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 for everywhere.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="0 for any that is free.")
    ] = 8000,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further name by which the service is reached, through a proxy; repeatable.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="DVMSR_TOKEN",
            show_envvar=False,
            help="What clients must know. Needed to listen beyond this machine. Better set "
            "DVMSR_TOKEN, which other users of this machine do not see.",
            show_default=False,
        ),
    ] = None,
    threads: Threads = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most of a picture, all frames together.")
    ] = Limits.pixels,
    max_bytes: Annotated[
        str, typer.Option(metavar="SIZE", help="Most of a picture's file, such as 64M.")
    ] = f"{Limits.bytes >> 20}M",
    queue: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="Most pictures at one time.")
    ] = Limits.queue,
    per_client: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most of these from one address.")
    ] = Limits.per_client,
    time_limit: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=1e9,
            metavar="SECONDS",
            help="Most that a picture may be computed, or received.",
        ),
    ] = Limits.seconds,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
    ray: RayAddress = None,
    workers: RayWorkers = None,
    offline: Offline = False,
) -> None:
    """Serve a page that enlarges pictures, and the same for programs by HTTP.

    The page takes pictures that are dropped, pasted or chosen, and shows each before and after.
    Programs send the bytes of a picture to /enlarge and get those of a larger one, the same as from
    dvmsr-infer; /interface describes it. Nothing is kept, and nothing is sent elsewhere.

    Only this machine reaches it, unless --host says otherwise; then a token is needed. The address
    is printed when it listens. One picture is computed at a time, or with --ray one by each of the
    cluster's workers; others wait. When more than --queue are there, clients are told to try again
    later. Needs pip install 'dvmsr[serve]'.

    \b
    Examples:
      dvmsr serve --open
      dvmsr serve --model paper --port 8080
      dvmsr serve --ray auto --queue 64
      DVMSR_TOKEN=... dvmsr serve --host 0.0.0.0
      curl --data-binary @photo.jpg "http://127.0.0.1:8000/enlarge?model=student" -o large.jpg
    """
    from dvmsr.runtime.serving.command import run

    run(
        *(model or [], host, port, allowed_host or [], token, threads, max_pixels, max_bytes),
        *(queue, per_client, time_limit, open_page, ray, workers),
    )
