"""`dvmsr train` and `dvmsr distill`. They import torch when they run, so `--help` stays fast."""

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from dvmsr.errors import MissingComponentError
from dvmsr.train.config.settings import HELP, Distillation, Settings
from dvmsr.utils.cli.options import Offline
from dvmsr.weights.registry import CHECKPOINT_NAMES


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
        typer.Option(
            help="Start from the network and weights of this checkpoint, or of one of "
            f"{', '.join(CHECKPOINT_NAMES)} (fine-tuning); with another --scale, from its body."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on exactly where the run in -o stopped; its options need not be repeated.",
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", show_default="one per core")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where to compute: auto (on a GPU if there is one), cpu, cuda:1 ...")
    ] = "auto",
    offline: Offline = False,
    **settings: Any,
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
        Path | None,
        typer.Option(
            help="Checkpoint of the network to learn from, or one of "
            f"{', '.join(CHECKPOINT_NAMES)}."
        ),
    ] = None,
    **options: Any,
) -> None:
    """Train a network on photographs and on what a larger, trained network makes of them.

    Takes every option of dvmsr train as well; by default the loss is that of the DVMSR paper.

    \b
    Examples:
      dvmsr distill --teacher teacher.safetensors --data photos/ -o run --minutes 100
      dvmsr distill --teacher paper --data DF2K -o run --recipe paper-distilled
      dvmsr distill --teacher t.safetensors --data DF2K -o run --recipe table7-mid-l2-5to1
      dvmsr distill -o run --resume
    """


def _options_of(settings: type) -> dict[str, Parameter]:
    """The fields of a dataclass of `setting`s as options."""
    types = get_type_hints(settings)
    return {
        each.name: Parameter(
            each.name,
            Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=Annotated[types[each.name], typer.Option(help=each.metadata[HELP])],
        )
        for each in fields(settings)
    }


def _take(command: Callable[..., None], options: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Replace the `**` of a command by options. All of its own, which typer reads from both the
    signature and the annotations of a function."""
    own = get_type_hints(command, include_extras=True)
    listed = {
        name: parameter.replace(annotation=own[name], kind=Parameter.KEYWORD_ONLY)
        for name, parameter in signature(command).parameters.items()
        if parameter.kind is not Parameter.VAR_KEYWORD
    }
    listed |= {name: option for name, option in options.items() if name not in listed}
    command.__annotations__ = {name: option.annotation for name, option in listed.items()}
    command.__signature__ = Signature(list(listed.values()))  # type: ignore[attr-defined]
    return listed


_take(distill, {**_options_of(Distillation), **_take(train, _options_of(Settings))})


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
