"""The training loop: L1 loss, Adam, a schedule over steps or time, EMA, exact resumption."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dvmsr import checkpoint
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.model import DVMSR
from dvmsr.pairs import Pair
from dvmsr.train.data import Patches
from dvmsr.train.report import RunLog, Screen
from dvmsr.train.schedule import Schedule
from dvmsr.train.state import FILE_NAME, TrainState
from dvmsr.train.validate import to_tensor, validate

ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Settings:
    """How to train. Exactly one of `steps` and `minutes` bounds the run and drives the schedule.

    Raises:
        UsageError: if a value makes no sense.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    lr: float = 2e-3
    schedule: Schedule = field(default_factory=Schedule)
    clip: float = 0.5
    """Largest norm of the gradient of all weights together; longer ones are shortened to it."""
    ema: float = 0.999
    """Decay per step of the averaged weights that are validated and shipped."""
    seed: int = 0
    log_every: int = 100
    save_every: int = 500
    validate_every: int = 1000

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("give either --steps or --minutes")
        for name in (
            "steps", "minutes", "batch", "lr", "clip", "log_every", "save_every", "validate_every",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"--{name.replace('_', '-')} must be positive, not {value}")
        if not 0 <= self.ema < 1:
            raise UsageError(f"--ema must be at least 0 and below 1, not {self.ema}")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, not {self.seed}")

    def fixed(self) -> dict[str, Any]:
        """The settings that a resumed run must share with its first session."""
        schedule = {f"schedule_{key}": value for key, value in asdict(self.schedule).items()}
        names = ("batch", "lr", "clip", "ema", "seed")
        return {**{name: getattr(self, name) for name in names}, **schedule}


class Trainer:
    """A run in the folder `out`.

    It holds `last.safetensors` and `best.safetensors` (averaged weights, with steps, data and
    scores as metadata), `log.jsonl`, and `resume.pt`, from which a later session goes on: on a CPU
    with the same number of threads to bit-equal weights.

    Args:
        model: the network; trained in place.
        settings: how.
        patches: the training data.
        validation: held-out pairs; the best checkpoint is the one with the highest PSNR-Y on
            them. Without any, there is no `best.safetensors`.
        out: an existing folder.
        state: where to go on from (`open_run`); None for a new run.
        device: where to compute.

    Raises:
        UsageError: if the run to resume has other settings, data or network.
        DvmsrError: if `out` is not writable.
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
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self.patches, self.validation = settings, patches, validation
        self.out, self.device = out, device
        model.to(device)
        self.model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=settings.lr, betas=ADAM_BETAS, fused=True
        )
        self.fixed = {
            **settings.fixed(),
            "patch": patches.patch,
            "data": patches.fingerprint,
        }
        self.step = 0
        self.earlier_seconds = 0.0
        self.best_psnr: float | None = None
        self.last_psnr: float | None = None
        self.started = time.monotonic()
        if state is not None:
            self._restore(state)
        self.log = RunLog(out / "log.jsonl", self.step)

    # -- progress ---------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Time spent on the run, over all its sessions."""
        return self.earlier_seconds + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1."""
        if self.settings.steps is not None:
            done = self.step / self.settings.steps
        else:
            assert self.settings.minutes is not None
            done = self.seconds / (60 * self.settings.minutes)
        return min(done, 1.0)

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end.

        SIGINT and SIGTERM end the step in progress, save, and raise KeyboardInterrupt.

        Raises:
            DvmsrError: if the loss is no longer finite, or the disk is full.
        """
        settings = self.settings
        self.started = time.monotonic()
        if self.step == 0:
            self._save_state()
        with Screen("training", total=1.0) as screen, stop_signals() as stop:
            losses: list[float] = []
            window_start = time.monotonic()
            while (progress := self.progress) < 1:
                rate = settings.lr * settings.schedule.factor(self.step, progress)
                losses.append(self._train_step(rate))
                if self.step % settings.log_every == 0:
                    speed = len(losses) / (time.monotonic() - window_start)
                    self._log(screen, losses, rate, speed)
                if self.step % settings.validate_every == 0:
                    self._validate(screen)
                elif self.step % settings.save_every == 0:
                    self._save_state()
                if self.step % settings.log_every == 0:
                    losses, window_start = [], time.monotonic()
                if stop.is_set():
                    self._save_state()
                    screen.line(f"stopped after step {self.step}; --resume continues {self.out}")
                    raise KeyboardInterrupt
            if self.step % settings.validate_every:
                self._validate(screen)
            else:
                self._save_state()  # with the time that the last validation took

    def _train_step(self, rate: float) -> float:
        lr, hr = self.patches.batch(self.settings.seed, self.step, self.settings.batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sr = self.model(to_tensor(lr, self.device))  # (B, 3, s*patch, s*patch)
        loss = F.l1_loss(sr, to_tensor(hr, self.device))
        value = loss.item()
        if not math.isfinite(value):
            raise DvmsrError(
                f"the loss became {value} at step {self.step}; restart with a lower --lr or --clip"
            )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self._update_average()
        self.step += 1
        return value

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average forgets faster, or it would hold on to the initial weights.
        decay = min(self.settings.ema, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.model.parameters()), 1 - decay
        )

    # -- telling and saving -----------------------------------------------------------------

    def _log(self, screen: Screen, losses: list[float], rate: float, speed: float) -> None:
        loss = sum(losses) / len(losses)
        self.log.append(
            {
                "step": self.step,
                "seconds": round(self.seconds, 2),
                "loss": loss,
                "lr": rate,
                "steps_per_second": speed,
            }
        )
        if self.settings.steps is not None:
            left = (self.settings.steps - self.step) / speed
        else:
            left = (1 - self.progress) * 60 * (self.settings.minutes or 0)
        score = "" if self.last_psnr is None else f"  PSNR-Y {self.last_psnr:.3f} dB"
        text = (
            f"step {self.step}  loss {loss:.5f}  {speed:.2f} steps/s{score}"
            f"  ETA {timedelta(seconds=round(left))}"
        )
        screen.update(self.progress, text)
        if not screen.live:
            screen.line(text)

    def _validate(self, screen: Screen) -> None:
        improved = False
        if self.validation:
            border = self.model.config.scale
            self.last_psnr = validate(self.average, self.validation, border)
            improved = self.best_psnr is None or self.last_psnr > self.best_psnr
            if improved:
                self.best_psnr = self.last_psnr
            seconds = round(self.seconds, 2)
            self.log.append({"step": self.step, "seconds": seconds, "psnr_y": self.last_psnr})
            best = " (best)" if improved else ""
            screen.line(f"step {self.step}  PSNR-Y {self.last_psnr:.3f} dB{best}")
        for name in ["last"] + ["best"] * improved:
            self._save_weights(self.out / f"{name}.safetensors")
        self._save_state()

    def _save_weights(self, path: Path) -> None:
        metadata = {
            "steps": str(self.step),
            "data": f"{len(self.patches.pairs)} images",
            "batch": f"{self.settings.batch} x {self.patches.patch}x{self.patches.patch} LR",
        }
        if self.last_psnr is not None:
            metadata["validation"] = f"PSNR-Y {self.last_psnr:.3f} dB"
        checkpoint.save(self.average, path, metadata)

    def _save_state(self) -> None:
        TrainState(
            step=self.step,
            seconds=self.seconds,
            config=self.model.config.to_json(),
            settings=self.fixed,
            weights=self.model.state_dict(),
            ema=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            best_psnr=self.best_psnr,
            last_psnr=self.last_psnr,
        ).save(self.out / FILE_NAME)

    def _restore(self, state: TrainState) -> None:
        now = {"network": self.model.config.to_json(), **self.fixed}
        then = {"network": state.config, **state.settings}
        for name in now:
            if now[name] != then.get(name):
                raise UsageError(
                    f"the run in {self.out} has {name} {then.get(name)}, this command {now[name]}; "
                    "repeat the first command with --resume"
                )
        self.model.load_state_dict(state.weights)
        self.average.load_state_dict(state.ema)
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self.earlier_seconds = state.step, state.seconds
        self.best_psnr, self.last_psnr = state.best_psnr, state.last_psnr


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one acts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
