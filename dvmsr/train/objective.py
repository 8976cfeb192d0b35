"""What training minimises: the distance to the photographs and, in distillation, to a teacher."""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvmsr.errors import UsageError
from dvmsr.model import DVMSR
from dvmsr.train.config.settings import Distillation

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss}
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Objective(nn.Module):
    """L1 between the network's output and the photographs.

    Args:
        student: the network to train.
    """

    def __init__(self, student: DVMSR) -> None:
        super().__init__()
        self.student = student

    def forward(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """(b, 3, h, w) and (b, 3, s*h, s*w) in [0, 1] -> `loss`, and its parts if there are any."""
        return {"loss": F.l1_loss(self.student(lr), hr)}

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have equal."""
        return {}

    def own_state(self) -> dict[str, Tensor]:
        """The weights that are trained besides the student's."""
        return {}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `own_state`."""


class DistillationObjective(Objective):
    """lambda_dis * |T(x) - S(x)| + lambda_1 * |S(x) - y|_1, as the paper has it.

    The first term compares what the frozen teacher T and the student S compute from x:

    * `end`: the output feature map, which is the upscaled image;
    * `mid`: the tokens after every RSSB of the student with those after the teacher's at the same
      relative depth, through a learned 1x1 projection where the channels differ; the mean over
      the RSSBs;
    * `both`: the sum of the two.

    `l1` and `l2` are means over all elements, of absolute and squared differences.

    Args:
        student: the network to train.
        teacher: another one; it is frozen and moved to the student's device.
        distillation: positions, distance, weights and the teacher's precision.

    Raises:
        UsageError: if the two upscale by different factors.
    """

    def __init__(self, student: DVMSR, teacher: DVMSR, distillation: Distillation) -> None:
        super().__init__(student)
        ours, theirs = student.config, teacher.config
        if ours.scale != theirs.scale:
            raise UsageError(
                f"the teacher upscales by {theirs.scale}, the student by {ours.scale}; "
                "give both one --scale"
            )
        self.distillation = distillation
        self.dtype = PRECISIONS[distillation.teacher_precision]
        self.distance = DISTANCES[distillation.distance]
        teacher = teacher.to(next(student.parameters()).device, self.dtype)
        teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher = teacher.eval().requires_grad_(False)
        self.projections = nn.ModuleList()
        if distillation.position != "end":
            same = ours.channels == theirs.channels
            for _ in ours.depths:
                # On tokens, a 1x1 convolution is a linear layer.
                self.projections.append(
                    nn.Identity() if same else nn.Linear(ours.channels, theirs.channels)
                )
        self.projections.to(next(student.parameters()).device)

    def forward(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """As `Objective.forward`; the parts are `l1` and `distillation`, both unweighted."""
        with torch.no_grad(), torch.autocast(lr.device.type, enabled=False):
            goal, goals = output_and_features(self.teacher, lr.to(self.dtype))
        sr, features = output_and_features(self.student, lr)
        distillation = sr.new_zeros(())
        if self.distillation.position in ("end", "both"):
            distillation = distillation + self.distance(sr, goal.to(sr.dtype))
        for i, projection in enumerate(self.projections):
            projected = projection(features[i])  # (b, L, C of the teacher)
            target = goals[counterpart(i, len(features), len(goals))].to(projected.dtype)
            distance = self.distance(projected, target)
            distillation = distillation + distance / len(self.projections)
        l1 = F.l1_loss(sr, hr)
        loss = self.distillation.lambda_dis * distillation + self.distillation.lambda_1 * l1
        return {"loss": loss, "l1": l1, "distillation": distillation}

    def settings(self) -> dict[str, Any]:
        return asdict(self.distillation)

    def own_state(self) -> dict[str, Tensor]:
        return self.projections.state_dict()

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        self.projections.load_state_dict(state)


def output_and_features(model: DVMSR, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The upscaled image (b, 3, s*h, s*w), and the tokens (b, L, C) after every RSSB."""
    features: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        features.append(output)

    hooks = [rssb.register_forward_hook(keep) for rssb in model.layers]
    try:
        return model(image), features
    finally:
        for hook in hooks:
            hook.remove()


def counterpart(index: int, students: int, teachers: int) -> int:
    """The teacher's RSSB that is as deep, relatively, as the student's: the last for the last."""
    return math.ceil((index + 1) * teachers / students) - 1
