"""One session of `dvmsr train` or `dvmsr distill`: the options become a `Trainer`, which runs.

What is left out when a run is resumed is as in its first session.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dvmsr import checkpoint
from dvmsr.data.pairs import Pair, find_dataset
from dvmsr.errors import MissingComponentError, UsageError
from dvmsr.model import DVMSR
from dvmsr.runtime import memory
from dvmsr.train.config.config_file import resolve
from dvmsr.train.config.settings import LENGTHS, Distillation, Settings, check_resumed, option
from dvmsr.train.data.cache import PixelCache
from dvmsr.train.data.patches import Patches
from dvmsr.train.data.photographs import Photograph, read_photographs
from dvmsr.train.data.sources import Source, find_sources
from dvmsr.train.loop import Trainer
from dvmsr.train.network import build_network, load_teacher
from dvmsr.train.objective import DistillationObjective, Objective
from dvmsr.train.parallel import AUTO, join
from dvmsr.train.run.board import check_board
from dvmsr.train.run.report import Screen
from dvmsr.train.run.state import TrainState, open_run
from dvmsr.train.validate import load_validation
from dvmsr.utils.console import notice, warnings_to
from dvmsr.utils.threads import bounded
from dvmsr.weights.registry import find_checkpoint

Options = Mapping[str, Any]


def run(given: Options, distill: bool = False) -> None:
    """Train as the command was told.

    Args:
        given: its options by name, without those that were left out.
        distill: whether a new run needs a teacher.

    Raises:
        UsageError: if they make no sense, together or for the run to resume.
        DvmsrError: as `Trainer.run`, or if a file cannot be read.
        MissingComponentError: if the device cannot be used.
    """
    given = _with_files(resolve(given))
    out = given["output"]
    if str(out) == "-":
        raise UsageError("--output - is a stream; name a folder, or ./- for one of that name")
    with warnings_to():
        state = open_run(out, given.get("resume", False))
        settings = _settings(given, out, state)
        origin = _origin(given, state)
        distillation = _distillation(given, out, state, distill)
    with join(origin["device"]) as group:
        with warnings_to():
            check_device(group.device)
            if settings.tensorboard:
                check_board()
            if threads := bounded(origin["threads"]):
                torch.set_num_threads(threads)
            torch.manual_seed(settings.seed)
            model = build_network(given, out, state, settings.dt_init)
            teacher = load_teacher(given, origin, out, state)
            if origin["init"] is not None and state is None:
                origin["init_sha256"] = checkpoint.sha256(origin["init"])
            sources, validation = _images(origin, model.config.scale)
            photographs = _photographs(origin["cache"], sources, model.config.scale)
            patches = Patches(
                photographs, model.config.scale, settings.patch, notice, settings.augment
            )
        objective: Callable[[DVMSR], Objective] = Objective
        if teacher and distillation:
            objective = partial(DistillationObjective, teacher=teacher, distillation=distillation)
        trainer = Trainer(
            model,
            settings,
            patches,
            validation,
            out,
            state=state,
            origin=origin,
            group=group,
            objective=objective,
        )
        _train(trainer)


def _train(trainer: Trainer) -> None:
    out, settings, validation = trainer.out, trainer.settings, trainer.validation
    if trainer.finished:
        notice(f"the run in {out} is complete; give more {option(settings.unit)} to make it longer")
        return
    if validation and trainer.group.device == "cpu":
        height, width = max((pair.lr.shape[:2] for pair in validation), key=math.prod)
        memory.check(trainer.model.config, "torch", height, width, "the largest image of --val")
    processes = "" if trainer.group.size == 1 else f" in each of {trainer.group.size} processes"
    notice(
        f"{'resuming' if trainer.resumed else 'training'} at step {trainer.step} "
        f"on {trainer.group.device}: "
        f"{len(trainer.patches.photographs)} images, {len(validation)} for validation, "
        f"{torch.get_num_threads()} threads{processes}"
    )
    trainer.run()
    best = "" if trainer.best_psnr is None else f", best PSNR-Y {trainer.best_psnr:.3f} dB"
    notice(f"done: {trainer.step} steps{best}; weights in {out}")


def check_device(name: str) -> None:
    """Whether PyTorch can compute there.

    Raises:
        UsageError: if there is no such kind of device.
        MissingComponentError: if it is not there.
    """
    try:
        torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name} is unknown; name auto, cpu, cuda or cuda:1") from None
    try:
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # pages may follow
        raise MissingComponentError(
            f"--device {name} cannot be used ({reason}); name another or leave it out"
        ) from None


def _settings(given: Options, out: Path, state: TrainState | None) -> Settings:
    names = [field.name for field in fields(Settings)]
    before: Options = {} if state is None else state.settings
    values = {name: before[name] for name in names if name in before}
    if any(name in given for name in LENGTHS):
        values |= dict.fromkeys(LENGTHS)
    values |= {name: given[name] for name in names if name in given}
    settings = Settings(**values)
    if state is not None:
        check_resumed(out, state.settings, asdict(settings))
        if settings.length != (before := state.settings[settings.unit]):
            notice(
                f"the run becomes longer, {settings.length:g} {settings.unit} instead of "
                f"{before:g}: from here the rate follows the schedule of that length"
            )
    return settings


def _distillation(
    given: Options, out: Path, state: TrainState | None, distill: bool
) -> Distillation | None:
    """What to learn from the teacher, None for a run without one."""
    names = [field.name for field in fields(Distillation)]
    chosen = {name: given[name] for name in names if name in given}
    if state is None:
        has_teacher = distill
        if distill and "teacher" not in given:
            raise UsageError("there is no teacher; name its checkpoint with --teacher")
    else:
        has_teacher = state.origin.get("teacher") is not None
    if not has_teacher:
        if chosen or "teacher" in given:
            name = next(iter(chosen), "teacher")
            raise UsageError(
                f"{option(name)} is for training with a teacher; begin it with dvmsr distill "
                "--teacher CKPT"
            )
        return None
    before = {} if state is None else {name: state.settings[name] for name in names}
    distillation = Distillation(**{**before, **chosen})
    check_resumed(out, before, asdict(distillation))
    return distillation


def _origin(given: Options, state: TrainState | None) -> dict[str, Any]:
    """Paths, made absolute, and where to compute."""
    origin: dict[str, Any] = dict.fromkeys(("val", "cache", "threads"))
    for name in ("init", "teacher"):
        origin |= {name: None, f"{name}_sha256": None}
    origin |= {"data": [], "device": AUTO} if state is None else state.origin
    if given.get("data"):
        origin["data"] = [_absolute(path) for path in given["data"]]
    if not origin["data"]:
        raise UsageError("there is nothing to train on; name folders or .tar shards with --data")
    for name in ("val", "cache", "init", "teacher"):
        if name in given and (name != "init" or state is None):
            origin[name] = _absolute(given[name])
    return origin | {name: given[name] for name in ("threads", "device") if name in given}


def _with_files(given: Options) -> Options:
    """The options with files in place of the names of weights.

    Raises:
        DvmsrError: if there are none, or they cannot be fetched.
    """
    named = {name: given[name] for name in ("init", "teacher") if name in given}
    return {**given, **{name: find_checkpoint(path) for name, path in named.items()}}


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - without .., and links not followed


def _images(origin: Options, scale: int) -> tuple[Sequence[Source], list[Pair]]:
    """What to train on, unread, and what to validate on.

    Raises:
        UsageError: if an image is in both.
    """
    held_out = find_dataset(Path(origin["val"]), scale).pairs if origin["val"] else ()
    validation = load_validation(held_out, scale)
    sources = find_sources([Path(path) for path in origin["data"]])
    common = {os.path.realpath(files.hr) for files in held_out} & {
        os.path.realpath(source.path) for source in sources
    }
    if common:
        raise UsageError(
            f"{min(common)} is in --val and below --data too; keep the two in separate folders"
        )
    return sources, validation


def _photographs(cache: str | None, sources: Sequence[Source], scale: int) -> list[Photograph]:
    """Those that can be decoded, their pixels in memory or in the folder `cache`."""
    notice(f"reading {len(sources)} images")
    with Screen("reading", total=len(sources)) as screen:
        if cache is None:
            return read_photographs(sources, scale, notice, screen.advance)
        pixels = PixelCache(Path(cache), sources, scale, notice, screen.advance)
    with Screen("decoding", total=len(sources)) as screen:
        pixels.make(screen.advance)
    return pixels.photographs()
