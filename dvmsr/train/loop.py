"""The training loop: a schedule over steps or time, averaged weights, exact resumption."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

import torch
from torch import Tensor

from dvmsr.config import DVMSRConfig, describe_difference
from dvmsr.data.pairs import Pair, Pixels
from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.model import DVMSR
from dvmsr.train.compiled import compile_blocks
from dvmsr.train.config.schedule import Schedule
from dvmsr.train.config.settings import Settings, check_resumed
from dvmsr.train.data.patches import Patches
from dvmsr.train.data.prefetch import Prefetch
from dvmsr.train.objective import Objective
from dvmsr.train.optimiser import DivergedError, Optimiser
from dvmsr.train.parallel import Group
from dvmsr.train.run.folder import RunFolder
from dvmsr.train.run.report import Screen, progress_line
from dvmsr.train.run.state import Fingerprint, TrainState, check_images
from dvmsr.train.validate import fingerprint, to_tensor, validate
from dvmsr.utils import signals
from dvmsr.utils.console import notice

BEGINNINGS = ("init_sha256", "teacher_sha256")
"""What checkpoints tell of `origin`: no paths, which are those of a machine."""
AHEAD = 4
"""Batches that are made while a GPU computes. On a CPU, making them would take from computing."""
SHOWN = 3
"""How many files of a batch are named in a message."""


class Trainer:
    """A run in the folder `out`.

    `RunFolder` tells what it holds. A later session goes on from there: on a CPU with the same
    number of threads to bit-equal weights.

    Args:
        model: the network; trained in place.
        settings: how.
        patches: the training data.
        validation: held-out pairs; the best checkpoint is the one with the highest PSNR-Y on
            them. Without any, there is no `best.safetensors`.
        out: a folder, made by `run` if need be.
        state: where to go on from (`open_run`); None for a new run.
        origin: plain values that `resume.pt` keeps for the caller.
        group: where to compute, and with which other processes.
        objective: makes what to minimise of the network.

    Raises:
        UsageError: if the run to resume has another network, other images or settings; see
            `check_resumed`.
    """

    def __init__(
        self,
        model: DVMSR,
        settings: Settings,
        patches: Patches,
        validation: list[Pair],
        out: Path,
        *,
        state: TrainState | None = None,
        origin: Mapping[str, Any] | None = None,
        group: Group | None = None,
        objective: Callable[[DVMSR], Objective] = Objective,
    ) -> None:
        self.settings, self.patches, self.validation = settings, patches, validation
        self.out, self.origin, self.group = out, dict(origin or {}), group or Group()
        self.folder = RunFolder(out, settings)
        self.part = self.group.part(settings.batch)
        self.schedule = Schedule(settings.schedule, settings.warmup, settings.milestones)
        model.to(self.group.device)
        self.model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        if settings.compile:
            compile_blocks(self.model)
        self.objective = objective(self.model)
        self.optimiser = Optimiser(self.objective, settings, self.group)
        self.data: Fingerprint = (len(patches.photographs), patches.fingerprint)
        self.held_out = fingerprint(validation)
        self.batches = Prefetch(self._batch, 0 if self.group.device == "cpu" else AHEAD)
        self.step = 0
        self.finished = False
        """Whether there is nothing left to do."""
        self.due = False
        """Whether the weights of this step are still to be validated."""
        self.updating = False
        """Whether the weights are on their way from one step to the next."""
        self.earlier_seconds = 0.0
        self.best_psnr: float | None = None
        self.last_psnr: float | None = None
        self.started = monotonic()
        self.resumed = state is not None
        if state is not None:
            self._restore(state)

    # -- progress ---------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Time spent on the run, over all its sessions."""
        return self.earlier_seconds + monotonic() - self.started

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1."""
        spent = self.step if self.settings.unit == "steps" else self.seconds / 60
        return min(spent / self.settings.length, 1.0)

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end.

        A signal ends it after the step in progress, or in the middle of a long one or of a
        validation, and what is done is saved.

        Raises:
            Ended: if a signal came.
            UsageError: if another process trains in the same folder.
            DvmsrError: if the loss is no longer finite or diverges, a step needs more memory than
                there is, or a file cannot be written.
        """
        if self.finished:
            return
        settings = self.settings
        self.started = monotonic()
        first_step = self.step
        with (
            Screen("training", total=1.0) as screen,
            signals.handled(),
            signals.last_words(self._save_at_once),
            ExitStack() as files,
            closing(self.batches),
        ):
            if self.due:
                self._open_files(first_step, files)
                self._validate()
            losses: list[dict[str, float]] = []
            window_start = monotonic()
            while (progress := self.group.first(self.progress)) < 1:
                rate = settings.lr * self.schedule.factor(self.step, progress)
                with _explained(settings):
                    losses.append(self._train_step(rate))
                if self.folder.log is None:  # not earlier: a failed first step leaves nothing
                    self._open_files(first_step, files)
                if self.step % settings.log_every == 0:
                    self._log(screen, losses, rate, monotonic() - window_start)
                self.due = self.step % settings.validate_every == 0
                if number := self.group.largest(signals.told()):
                    self._stop(number)
                if self.due:
                    self._validate()
                elif self.step % settings.save_every == 0:
                    self._save_state()
                if self.step % settings.log_every == 0:
                    losses, window_start = [], monotonic()
            if losses:
                self._log(screen, losses, rate, monotonic() - window_start)
            if self.folder.log is None:  # the time was up
                self._open_files(first_step, files)
            if self.step % settings.validate_every or not self.step:
                self._validate()
            self.finished = True
            self._save_state()

    def _stop(self, number: int) -> NoReturn:
        """Save, and end as told by a signal."""
        with signals.patience():
            self._save_state()
        notice(f"stopped after step {self.step}; --resume continues {self.out}")
        raise signals.Ended(number)

    def _save_at_once(self) -> None:
        """What a signal that cannot wait for the end of a step, or of a validation, leaves."""
        if self.folder.log is not None and not self.updating:
            self._save_state()
            notice(f"stopped after step {self.step}; --resume continues {self.out}")

    def _open_files(self, first_step: int, until: ExitStack) -> None:
        if self.group.is_first:
            beginning = None if self.resumed else self._state()
            self.folder.open(first_step, beginning, until)

    def _train_step(self, rate: float) -> dict[str, float]:
        lr, hr = (to_tensor(pixels, self.group.device) for pixels in self.batches(self.step))
        with ExitStack() as until:

            def update() -> None:
                until.enter_context(signals.patience())
                self.updating = True

            try:
                values = self.optimiser.step(lr, hr, rate, update)
            except DivergedError as error:
                raise self._explain(error, self.step) from None
            self._update_average()
            self.step += 1
            self.updating = False
        return values

    def _batch(self, step: int) -> list[Tensor]:
        """This process's LR and HR patches, (b, h, w, 3) and (b, s*h, s*w, 3), uint8."""
        settings = self.settings
        patches = self.patches.batch(settings.seed, step, settings.batch, self.part)
        parts = [torch.from_numpy(pixels) for pixels in patches]
        on_gpu = self.group.device.startswith("cuda")
        return [part.pin_memory() for part in parts] if on_gpu else parts

    def _explain(self, error: DivergedError, step: int) -> DvmsrError:
        """Name the step that failed or spoiled the weights, the photographs and what to go on
        from; all of the photographs go into the log."""
        self.batches.close()
        files = self.patches.files(self.settings.seed, step, self.settings.batch)
        text = f"{error} at step {step} with {', '.join(files[:SHOWN])}"
        start = "start anew with"
        if (log := self.folder.log) is not None:
            log.append({"step": step, "error": str(error), "files": files})
            if len(files) > SHOWN:
                text += f" and {len(files) - SHOWN} more, listed in {log.path}"
            if last := self.folder.last_weights():
                start = f"start anew from {last} with --init and"
        return DvmsrError(f"{text}; {start} a lower --lr or --clip")

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average forgets faster, or it would hold on to the initial weights.
        decay = min(self.settings.ema, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.model.parameters()), 1 - decay
        )

    # -- reporting -----------------------------------------------------------------

    def _log(
        self, screen: Screen, losses: list[dict[str, float]], rate: float, seconds: float
    ) -> None:
        """Tell of the steps since the last report, which took so many seconds."""
        speed = len(losses) / max(seconds, 1e-9)  # a clock may stand still
        means = {name: sum(loss[name] for loss in losses) / len(losses) for name in losses[0]}
        self.folder.append(
            {
                "step": self.step,
                "seconds": round(self.seconds, 2),
                **means,
                "lr": rate,
                "steps_per_second": speed,
            }
        )
        left = (1 - self.progress) * self.settings.length
        left *= 60 if self.settings.unit == "minutes" else 1 / speed
        text = progress_line(
            self.step,
            means["loss"],
            self.last_psnr,
            speed * self.settings.batch,
            left,
            self.group.device,
        )
        screen.update(self.progress, text)
        if not screen.live:
            notice(text)

    def _validate(self) -> None:
        """Score the averaged weights, and save everything."""
        if not self.group.is_first:
            return
        improved = False
        if self.validation:
            try:
                self.last_psnr = validate(
                    self.average,
                    self.validation,
                    self.model.config.scale,
                    self._show,
                )
            except DivergedError as error:
                raise self._explain(error, max(self.step - 1, 0)) from None
            improved = self.best_psnr is None or self.last_psnr > self.best_psnr
            if improved:
                self.best_psnr = self.last_psnr
            seconds = round(self.seconds, 2)
            self.folder.append({"step": self.step, "seconds": seconds, "psnr_y": self.last_psnr})
            best = " (best)" if improved else ""
            notice(f"step {self.step}  PSNR-Y {self.last_psnr:.3f} dB{best}")
        self.folder.save_weights(self.average, self.step, self._metadata(), improved)
        self.due = False
        self._save_state()

    def _show(self, number: int, image: Pixels) -> None:
        """Keep a picture of the validation, unless a signal has come."""
        if signal := signals.told():
            self._stop(signal)
        self.folder.save_picture(number, image, self.step)

    def _metadata(self) -> dict[str, str]:
        """What checkpoints tell besides weights and network."""
        begun_with = {name: self.origin.get(name) for name in BEGINNINGS}
        metadata = {
            "steps": str(self.step),
            "data": f"{len(self.patches.photographs)} images",
            "batch": f"{self.settings.batch} x {self.settings.patch}x{self.settings.patch} LR",
            "training": json.dumps({**self._settings(), **begun_with}, sort_keys=True),
        }
        if self.last_psnr is not None:
            metadata["validation"] = f"PSNR-Y {self.last_psnr:.3f} dB"
        return metadata

    def _save_state(self) -> None:
        if self.group.is_first:
            self.folder.save_state(self._state())

    def _state(self) -> TrainState:
        return TrainState(
            step=self.step,
            seconds=self.seconds,
            finished=self.finished,
            due=self.due,
            config=self.model.config.to_json(),
            settings=self._settings(),
            origin=self.origin,
            data=self.data,
            validation=self.held_out,
            weights=self.model.state_dict(),
            ema=self.average.state_dict(),
            objective=self.objective.own_state(),
            optimiser=self.optimiser.state(),
            best_psnr=self.best_psnr,
            last_psnr=self.last_psnr,
        )

    def _settings(self) -> dict[str, Any]:
        return {**asdict(self.settings), **self.objective.settings()}

    def _restore(self, state: TrainState) -> None:
        config = DVMSRConfig.from_json(state.config)
        if config != self.model.config:
            raise UsageError(
                f"the run in {self.out} has another network "
                f"({describe_difference(config, self.model.config)}); give that network"
            )
        check_resumed(self.out, state.settings, self._settings())
        check_images(self.out, "--data", state.data, self.data)
        check_images(self.out, "--val", state.validation, self.held_out)
        self.model.load_state_dict(state.weights)
        self.average.load_state_dict(state.ema)
        self.objective.load_own_state(state.objective)
        self.optimiser.load_state(state.optimiser)
        self.step, self.earlier_seconds = state.step, state.seconds
        self.best_psnr, self.last_psnr, self.due = state.best_psnr, state.last_psnr, state.due
        self.finished = state.finished and self.progress == 1


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    """Say in one sentence when a step needs more memory or more of PyTorch than there is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = str(error).strip().splitlines()[0]
            raise MissingComponentError(
                f"the network cannot be compiled here ({reason}); install what PyTorch needs for "
                "that, such as a C++ compiler, or give --no-compile"
            ) from None
        if isinstance(error, RuntimeError) and not any(
            sign in str(error) for sign in ("allocate memory", "out of memory")
        ):
            raise
        raise DvmsrError(
            f"a step of {settings.batch} patches needs more memory than there is; "
            "lower --batch or --patch"
        ) from None
