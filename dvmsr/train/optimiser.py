"""One step of training: forward, backward, clipping, Muon or Adam; and when to give up."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dvmsr.train.config.settings import Settings
from dvmsr.train.muon import Muon, hidden_matrices
from dvmsr.train.objective import PRECISIONS, Objective
from dvmsr.train.parallel import Group

MEMORY = 0.98
"""How much of `Watch.smooth` stays at each step: it spans about 50."""
WORST = 5.0
"""A smoothed loss this many times its lowest value diverges. In a sound run it stays below 2."""


class DivergedError(Exception):
    """Training cannot go on; the message says what is wrong, as `the loss became nan`."""


@dataclass
class Watch:
    """Follows the loss, and notices when it is no number or grows without end."""

    smooth: float = 0.0
    """Mean of the losses, later ones weighing more."""
    seen: int = 0
    lowest: float = math.inf

    def check(self, loss: float) -> None:
        """Take the loss of one more step.

        Raises:
            DivergedError: if it is not finite, or has been far above its best for long.
        """
        if not math.isfinite(loss):
            raise DivergedError(f"the loss became {loss}")
        self.seen += 1
        new = max(1 - MEMORY, 1 / self.seen)
        self.smooth += new * (loss - self.smooth)
        if self.seen < 1 / (1 - MEMORY):
            return
        self.lowest = min(self.lowest, self.smooth)
        if self.smooth > WORST * self.lowest:
            raise DivergedError(f"the loss grew to {self.smooth:.4g} from {self.lowest:.4g}")


class Optimiser:
    """Muon on the matrices inside the network and Adam on all else that an objective trains, or
    Adam on everything.

    Under `fp16` and `bf16` the layers compute in that type by autocast; weights, their
    averages, norms, A, D and the state of the scan stay FP32. `fp16` scales the loss, and skips
    steps whose gradients overflow.

    Args:
        objective: what to minimise, on its device.
        settings: `optimiser`, `beta1`, `beta2`, `lr`, `clip` and `precision` count.
        group: the processes that share the batch.
    """

    def __init__(
        self, objective: Objective, settings: Settings, group: Group | None = None
    ) -> None:
        self.settings, self.group = settings, group or Group()
        self.objective = self.group.wrap(objective)
        self.trained = [p for p in objective.parameters() if p.requires_grad]
        self.device = self.trained[0].device.type
        self.dtype = PRECISIONS[settings.precision]
        matrices = hidden_matrices(objective.student) if settings.optimiser == "muon" else []
        taken = set(map(id, matrices))
        others = [p for p in self.trained if id(p) not in taken]
        betas = settings.beta1, settings.beta2
        self.parts: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.Adam(others, lr=settings.lr, betas=betas, fused=True)
        }
        if matrices:
            self.parts["muon"] = Muon(matrices, settings.lr)
        self.scaler = torch.amp.GradScaler(self.device, enabled=settings.precision == "fp16")
        self.watch = Watch()

    def step(
        self, lr: Tensor, hr: Tensor, rate: float, update: Callable[[], object] = lambda: None
    ) -> dict[str, float]:
        """Learn from one batch, or from this process's part of it.

        Args:
            lr: (b, 3, h, w) in [0, 1].
            hr: (b, 3, s*h, s*w).
            rate: the learning rate.
            update: called before anything of `state` changes but the rate.

        Returns:
            The loss and its parts.

        Raises:
            DivergedError: if the loss or the gradient is no longer sound; the weights are those
                before the step.
        """
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = rate
        in_half = self.dtype != torch.float32
        with torch.autocast(self.device, self.dtype) if in_half else nullcontext():
            losses = self.objective(lr, hr)
        values = self.group.mean({name: loss.item() for name, loss in losses.items()})
        for parameter in self.trained:
            parameter.grad = None
        self.scaler.scale(losses["loss"]).backward()
        for part in self.parts.values():
            self.scaler.unscale_(part)
        norm = nn.utils.clip_grad_norm_(self.trained, self.settings.clip or math.inf).item()
        update()
        self.watch.check(values["loss"])
        if math.isfinite(norm):
            for part in self.parts.values():
                self.scaler.step(part)
        elif not self.scaler.is_enabled():
            raise DivergedError(f"the gradient became {norm}")
        self.scaler.update()
        return values

    def state(self) -> dict[str, Any]:
        """What goes on with a resumed run."""
        return {
            **{name: part.state_dict() for name, part in self.parts.items()},
            "scaler": self.scaler.state_dict(),
            "watch": vars(self.watch).copy(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.scaler.load_state_dict(state["scaler"])
        self.watch = Watch(**state["watch"])
