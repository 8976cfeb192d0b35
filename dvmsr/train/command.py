"""`dvmsr train`. Imports torch only when it runs, so that `--help` stays fast."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dvmsr.errors import MissingComponentError
from dvmsr.train.settings import PATCH, Settings


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log and resume state.")],
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
    preset: Annotated[
        str | None, typer.Option(help="Network to train.", show_default="student")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="Upscaling factor: 2, 3 or 4.", show_default="4")
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
            help="Go on exactly where the run in --out stopped; its options need not be repeated.",
        ),
    ] = False,
    batch: Annotated[int, typer.Option(help="Patches per step.")] = Settings.batch,
    patch: Annotated[int, typer.Option(help="Side of a low-resolution patch in pixels.")] = PATCH,
    lr: Annotated[float, typer.Option(help="Peak learning rate of Adam.")] = Settings.lr,
    schedule: Annotated[
        str, typer.Option(help="cosine (to zero) or multistep (halve at 50, 80, 90, 95 %).")
    ] = Settings.schedule,
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = Settings.warmup,
    clip: Annotated[float, typer.Option(help="Largest gradient norm.")] = Settings.clip,
    ema: Annotated[
        float, typer.Option(help="Decay per step of the averaged weights.")
    ] = Settings.ema,
    seed: Annotated[int, typer.Option(help="Seed of weights, patches and order.")] = Settings.seed,
    log_every: Annotated[int, typer.Option(help="Steps between log rows.")] = Settings.log_every,
    save_every: Annotated[
        int, typer.Option(help="Steps between resume states.")
    ] = Settings.save_every,
    validate_every: Annotated[
        int, typer.Option(help="Steps between validations, with checkpoints.")
    ] = Settings.validate_every,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", show_default="one per core")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 ...")] = "cpu",
) -> None:
    """Train a network on photographs; their low-resolution versions are made by bicubic reduction.

    All photographs are held in memory, at three bytes per pixel.

    \b
    Examples:
      dvmsr train --data photos/ --val kodak/ --out run --minutes 100
      dvmsr train --data photos-*.tar --out run --steps 50000
      dvmsr train --out run --resume
      dvmsr train --data photos/ --init run/best.safetensors --out tuned --steps 5000 --lr 2e-4
    """
    options = dict(locals())  # not context.params, which older versions of typer leave as text
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
    paths = [*(data or ()), *(more or ())]
    run({**given, "data": paths} if paths else given)
