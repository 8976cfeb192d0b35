"""`dvmsr train`. Imports torch only when it runs, so that `--help` stays fast."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dvmsr.errors import MissingComponentError, UsageError


def train(
    data: Annotated[
        list[Path],
        typer.Option(
            help="Folder with photographs or .tar shards of them, or one such file; repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log and resume state.")],
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
        bool, typer.Option("--resume", help="Go on exactly where the run in --out stopped.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Patches per step.")] = 8,
    patch: Annotated[int, typer.Option(help="Side of a low-resolution patch in pixels.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate of Adam.")] = 2e-3,
    schedule: Annotated[
        str, typer.Option(help="cosine (to zero) or multistep (halve at 50, 80, 90, 95 %).")
    ] = "cosine",
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = 100,
    clip: Annotated[float, typer.Option(help="Largest gradient norm.")] = 0.5,
    ema: Annotated[float, typer.Option(help="Decay per step of the averaged weights.")] = 0.999,
    seed: Annotated[int, typer.Option(help="Seed of weights, patches and order.")] = 0,
    log_every: Annotated[int, typer.Option(help="Steps between log rows.")] = 100,
    save_every: Annotated[int, typer.Option(help="Steps between resume states.")] = 500,
    validate_every: Annotated[
        int, typer.Option(help="Steps between validations, with checkpoints.")
    ] = 1000,
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
      dvmsr train --data photos-0.tar --data photos-1.tar --out run --steps 50000
      dvmsr train --data photos/ --out run --steps 50000 --resume
      dvmsr train --data photos/ --init run/best.safetensors --out tuned --steps 5000 --lr 2e-4
    """
    for option, value in (("--patch", patch), ("--threads", threads)):
        if value is not None and value < 1:
            raise UsageError(f"{option} must be positive, not {value}")

    from dvmsr.cli_support import notice
    from dvmsr.config import preset as named_preset
    from dvmsr.train.schedule import Schedule

    # OpenMP threads that spin while they wait slow everything threefold once cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch
    except ImportError:
        raise MissingComponentError(
            "training needs torch; install it with pip install 'dvmsr[train]'"
        ) from None

    from dvmsr import checkpoint
    from dvmsr.model import DVMSR
    from dvmsr.train.data import Patches, find_sources
    from dvmsr.train.loop import Settings, Trainer
    from dvmsr.train.report import Screen
    from dvmsr.train.state import open_run
    from dvmsr.train.validate import load_validation

    settings = Settings(
        steps=steps,
        minutes=minutes,
        batch=batch,
        lr=lr,
        schedule=Schedule(schedule, warmup),
        clip=clip,
        ema=ema,
        seed=seed,
        log_every=log_every,
        save_every=save_every,
        validate_every=validate_every,
    )
    if device != "cpu":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise MissingComponentError(f"{device} cannot be used ({reason}); try cpu") from None
    if threads is not None:
        torch.set_num_threads(threads)
    state = open_run(out, resume)
    torch.manual_seed(seed)
    if init is not None:
        model = checkpoint.load(init)
        config = model.config
        if preset is not None and replace(named_preset(preset), scale=config.scale) != config:
            raise UsageError(f"{init} is not a {preset} network; leave --preset out")
        if scale not in (None, config.scale):
            raise UsageError(f"{init} upscales by {config.scale}, not {scale}; leave --scale out")
    else:
        config = named_preset(preset or "student")
        model = DVMSR(replace(config, scale=scale or config.scale))

    validation = load_validation(val, model.config.scale) if val is not None else []
    sources = find_sources(data)
    notice(f"reading {len(sources)} images")
    with Screen("reading", total=len(sources)) as screen:
        patches = Patches(sources, model.config.scale, patch, screen.line, screen.advance)
    trainer = Trainer(model, settings, patches, validation, out, state=state, device=device)
    notice(
        f"{'resuming' if resume else 'training'} at step {trainer.step}: "
        f"{len(patches.pairs)} images, {len(validation)} for validation, "
        f"{torch.get_num_threads()} threads"
    )
    trainer.run()
    best = "" if trainer.best_psnr is None else f", best PSNR-Y {trainer.best_psnr:.3f} dB"
    notice(f"done: {trainer.step} steps{best}; weights in {out}")
