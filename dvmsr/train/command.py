"""`dvmsr train` and `dvmsr distill`. They import torch when they run, so `--help` stays fast."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from dvmsr.errors import MissingComponentError
from dvmsr.train.config.settings import Distillation, Settings


def _running(distill: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose function declares its options, all of which go to `_run`."""

    def decorate(declared: Callable[..., None]) -> Callable[..., None]:
        @wraps(declared)
        def command(context: typer.Context, **options: Any) -> None:
            # Not context.params, which older versions of typer leave as text.
            _run(context, options, distill)

        return command

    return decorate


@_running(distill=False)
def train(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for checkpoints, log and resume state.")
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder with photographs or .tar shards of them, or one such file; repeatable.",
            show_default=False,
        ),
    ] = None,
    more: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DATA",
            help="More of the same, so that --data photos-*.tar means what it says.",
            show_default=False,
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(help="Held-out folder: HR images, or HR/ with LRx<scale>/ beside it."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for decoded pixels, read from there instead of held in memory."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Network to train.", show_default="student")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="Upscaling factor: 2, 3 or 4.", show_default="4")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Named configuration, such as paper or table4-rssb6; see the manual."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with options; it overrides a recipe, the command line overrides it."
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Start from this checkpoint's network and weights (fine-tuning)."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the run in steps.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Length of the run in minutes, all sessions together."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on exactly where the run in -o stopped; its options need not be repeated.",
        ),
    ] = False,
    batch: Annotated[int, typer.Option(help="Patches per step.")] = Settings.batch,
    patch: Annotated[
        int, typer.Option(help="Side of a low-resolution patch in pixels.")
    ] = Settings.patch,
    optimiser: Annotated[
        str, typer.Option(help="muon (and Adam for what is no matrix), or adam.")
    ] = Settings.optimiser,
    beta1: Annotated[float, typer.Option(help="Of Adam.")] = Settings.beta1,
    beta2: Annotated[float, typer.Option(help="Of Adam.")] = Settings.beta2,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = Settings.lr,
    schedule: Annotated[
        str, typer.Option(help="cosine (to zero) or multistep (halve at milestones).")
    ] = Settings.schedule,
    milestones: Annotated[
        str, typer.Option(help="Where multistep halves the rate, as fractions of the run.")
    ] = Settings.milestones,
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = Settings.warmup,
    clip: Annotated[float, typer.Option(help="Largest gradient norm; 0: any.")] = Settings.clip,
    ema: Annotated[
        float, typer.Option(help="Decay per step of the averaged weights.")
    ] = Settings.ema,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Turn and mirror patches at random.")
    ] = Settings.augment,
    seed: Annotated[int, typer.Option(help="Seed of weights, patches and order.")] = Settings.seed,
    dt_init: Annotated[
        str, typer.Option(help="How delta's projection begins: mamba, or official (reset).")
    ] = Settings.dt_init,
    precision: Annotated[
        str, typer.Option(help="What layers compute in: fp32, bf16 or fp16 (the scan in FP32).")
    ] = Settings.precision,
    log_every: Annotated[int, typer.Option(help="Steps between log rows.")] = Settings.log_every,
    save_every: Annotated[
        int, typer.Option(help="Steps between resume states.")
    ] = Settings.save_every,
    validate_every: Annotated[
        int, typer.Option(help="Steps between validations, with checkpoints.")
    ] = Settings.validate_every,
    keep: Annotated[
        int, typer.Option(help="Checkpoints kept besides best and last.")
    ] = Settings.keep,
    pictures: Annotated[
        int, typer.Option(help="Upscaled images of --val to write at each validation.")
    ] = Settings.pictures,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write curves and pictures for TensorBoard, too.")
    ] = False,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the network's blocks with torch.compile, which takes a minute or more.",
        ),
    ] = Settings.compile,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", show_default="one per core")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where to compute: auto (on a GPU if there is one), cpu, cuda:1 ...")
    ] = "auto",
) -> None:
    """Train a network on photographs; their low-resolution versions are made by bicubic reduction.

    All photographs are held in memory, at three bytes per pixel, unless there is a --cache.

    \b
    Examples:
      dvmsr train --data photos/ --val kodak/ -o run --minutes 100
      dvmsr train --data photos-*.tar -o run --steps 50000
      dvmsr train --data DIV2K Flickr2K --val kodak/ -o run --recipe paper
      dvmsr train -o run --resume
      dvmsr train --data photos/ --init run/best.safetensors -o tuned --steps 5000 --lr 2e-4
    """


@_running(distill=True)
def distill(
    context: typer.Context,
    teacher: Annotated[
        Path | None, typer.Option(help="Checkpoint of the network to learn from.")
    ] = None,
    position: Annotated[
        str,
        typer.Option(help="Compare end (the output), mid (every RSSB) or both."),
    ] = Distillation.position,
    distance: Annotated[
        str, typer.Option(help="To the teacher: l1 or l2, means over all elements.")
    ] = Distillation.distance,
    lambda_dis: Annotated[
        float, typer.Option(help="Weight of the distance to the teacher.")
    ] = Distillation.lambda_dis,
    lambda_1: Annotated[
        float, typer.Option(help="Weight of the L1 distance to the photographs.")
    ] = Distillation.lambda_1,
    teacher_precision: Annotated[
        str, typer.Option(help="What the teacher computes in: fp32, fp16 or bf16.")
    ] = Distillation.teacher_precision,
    **options: Any,
) -> None:
    """Train a network on photographs and on what a larger, trained network makes of them.

    Takes every option of dvmsr train as well; by default the loss is that of the DVMSR paper.

    \b
    Examples:
      dvmsr distill --teacher teacher.safetensors --data photos/ -o run --minutes 100
      dvmsr distill --teacher official.pth --data DF2K -o run --recipe paper-distilled
      dvmsr distill --teacher t.safetensors --data DF2K -o run --recipe table7-mid-l2-5to1
      dvmsr distill -o run --resume
    """


def _take_options_of(command: Callable[..., None], more: Callable[..., None]) -> None:
    """Replace the `**options` of one command by the options of another.

    Typer reads both the signature and the annotations of a function.
    """
    both = {**get_type_hints(command, include_extras=True)}
    both |= get_type_hints(more, include_extras=True)
    listed = {**signature(command).parameters, **signature(more).parameters}
    parameters = [
        parameter.replace(annotation=both[name], kind=Parameter.KEYWORD_ONLY)
        for name, parameter in listed.items()
        if parameter.kind is not Parameter.VAR_KEYWORD
    ]
    more.__annotations__ = both
    more.__signature__ = Signature(parameters)  # type: ignore[attr-defined]


_take_options_of(train, distill)


def _run(context: typer.Context, options: Mapping[str, Any], distill: bool) -> None:
    # OpenMP threads that spin while they wait slow everything threefold once cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from dvmsr.train.session import run
    except ModuleNotFoundError as error:
        raise MissingComponentError(
            f"training needs {error.name}; install it with pip install 'dvmsr[train]'"
        ) from None

    given = {
        name: options[name]
        for name in context.params
        if (source := context.get_parameter_source(name)) and source.name != "DEFAULT"
    }
    paths = [*(options["data"] or ()), *(options["more"] or ())]
    run({**given, "data": paths} if paths else given, distill)
