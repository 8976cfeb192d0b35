"""The losses, against a restatement; what the teacher is spared, and what the student learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dvmsr.config import DVMSRConfig
from dvmsr.errors import UsageError
from dvmsr.model import DVMSR
from dvmsr.train.config.settings import Distillation
from dvmsr.train.objective import (
    DistillationObjective,
    Objective,
    counterpart,
    output_and_features,
)

STUDENT = DVMSRConfig(channels=8, depths=(1, 1), state=4, scale=2)
TEACHER = replace(STUDENT, channels=12, depths=(1, 1, 1, 1), upsampler="pixelshuffle")


@pytest.fixture
def pictures() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(2, 3, 5, 6), torch.rand(2, 3, 10, 12)


def networks(teacher: DVMSRConfig = TEACHER) -> tuple[DVMSR, DVMSR]:
    torch.manual_seed(0)
    return DVMSR(STUDENT), DVMSR(teacher)


def restated_features(model: DVMSR, image: Tensor) -> list[Tensor]:
    """The tokens after every RSSB, (b, L, C)."""
    x = model.conv_first(image - model.mean)
    x = model.patch_embed(x.flatten(2).transpose(1, 2))
    tokens = []
    for rssb in model.layers:
        x = rssb(x, image.shape[2:])
        tokens.append(x)
    return tokens


def test_without_a_teacher_it_is_the_l1_distance(pictures: tuple[Tensor, Tensor]) -> None:
    student, _ = networks()
    lr, hr = pictures
    parts = Objective(student)(lr, hr)
    assert list(parts) == ["loss"]
    torch.testing.assert_close(parts["loss"], (student(lr) - hr).abs().mean())


@pytest.mark.parametrize("weights", [(1.0, 1.0), (5.0, 1.0), (2.0, 0.0)], ids=str)
@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("position", ["end", "mid", "both"])
def test_the_loss_is_the_papers(
    pictures: tuple[Tensor, Tensor], position: str, distance: str, weights: tuple[float, float]
) -> None:
    student, teacher = networks()
    lr, hr = pictures
    objective = DistillationObjective(student, teacher, Distillation(position, distance, *weights))

    def apart(a: Tensor, b: Tensor) -> Tensor:
        difference = a - b
        return (difference.abs() if distance == "l1" else difference * difference).mean()

    with torch.no_grad():
        wanted = torch.zeros(())
        if position != "mid":
            wanted = wanted + apart(student(lr), teacher(lr))
        if position != "end":
            ours, theirs = (restated_features(model, lr) for model in (student, teacher))
            for tokens, place, layer in zip(ours, (1, 3), objective.projections, strict=True):
                projected = tokens @ layer.weight.T + layer.bias
                wanted = wanted + apart(projected, theirs[place]) / 2
        l1 = (student(lr) - hr).abs().mean()
    parts = objective(lr, hr)
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(parts["distillation"], wanted, **close)
    torch.testing.assert_close(parts["l1"], l1, **close)
    torch.testing.assert_close(parts["loss"], weights[0] * wanted + weights[1] * l1, **close)


def test_the_teacher_is_frozen_and_the_rest_learns(pictures: tuple[Tensor, Tensor]) -> None:
    student, teacher = networks()
    teacher.train()
    objective = DistillationObjective(student, teacher, Distillation("mid", lambda_1=0))
    objective(*pictures)["loss"].backward()
    assert not objective.teacher.training
    assert all(p.grad is None and not p.requires_grad for p in objective.teacher.parameters())
    learning = [*student.parameters(), *objective.projections.parameters()]
    assert all(parameter.grad is not None for parameter in learning)  # DDP waits for each of them
    assert all(layer.weight.grad.abs().sum() > 0 for layer in objective.projections)


def test_equal_channels_need_no_projection(pictures: tuple[Tensor, Tensor]) -> None:
    student, _ = networks()
    twin = DVMSR(STUDENT)
    twin.load_state_dict(student.state_dict())
    objective = DistillationObjective(student, twin, Distillation("both"))
    assert not objective.own_state()
    assert objective(*pictures)["distillation"].item() < 1e-6


@pytest.mark.parametrize(("precision", "within"), [("fp16", 1e-2), ("bf16", 5e-2)])
def test_a_teacher_in_half_precision_is_close(
    pictures: tuple[Tensor, Tensor], precision: str, within: float
) -> None:
    lr, hr = pictures
    distances = []
    for chosen in ("fp32", precision):
        student, teacher = networks()
        distillation = Distillation("both", teacher_precision=chosen)
        torch.manual_seed(2)
        objective = DistillationObjective(student, teacher, distillation)
        loss = objective(lr, hr)["distillation"]
        assert loss.dtype == torch.float32
        distances.append(loss.item())
    assert next(objective.teacher.parameters()).dtype != torch.float32
    assert distances[1] == pytest.approx(distances[0], rel=within)
    assert distances[1] != distances[0]


def test_its_own_weights_come_back(pictures: tuple[Tensor, Tensor]) -> None:
    first, second = (DistillationObjective(*networks(), Distillation("mid")) for _ in range(2))
    for layer in second.projections:
        torch.nn.init.zeros_(layer.weight)
    assert first(*pictures)["loss"] != second(*pictures)["loss"]
    second.load_own_state(first.own_state())
    assert torch.equal(first(*pictures)["loss"], second(*pictures)["loss"])


@pytest.mark.parametrize(
    ("students", "teachers", "places"),
    [(4, 8, [1, 3, 5, 7]), (4, 4, [0, 1, 2, 3]), (4, 6, [1, 2, 4, 5]), (4, 2, [0, 0, 1, 1])],
)
def test_counterparts_are_as_deep_and_the_last_is_the_last(
    students: int, teachers: int, places: list[int]
) -> None:
    assert [counterpart(i, students, teachers) for i in range(students)] == places


def test_features_are_those_after_every_rssb(pictures: tuple[Tensor, Tensor]) -> None:
    _, teacher = networks()
    output, features = output_and_features(teacher, pictures[0])
    torch.testing.assert_close(output, teacher(pictures[0]))
    torch.testing.assert_close(features, restated_features(teacher, pictures[0]))
    assert not teacher.layers[0]._forward_hooks


def test_another_scale_is_refused() -> None:
    student, teacher = networks(replace(TEACHER, scale=4))
    with pytest.raises(UsageError, match="the teacher upscales by 4, the student by 2"):
        DistillationObjective(student, teacher, Distillation())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"position": "top"}, "--position must be one of end, mid, both, not 'top'"),
        ({"distance": "l3"}, "--distance must be one of l1, l2"),
        ({"teacher_precision": "int8"}, "--teacher-precision must be one of fp32, fp16, bf16"),
        ({"lambda_dis": -1.0}, "--lambda-dis must be from 0"),
        ({"lambda_1": float("nan")}, "--lambda-1 must be from 0"),
        ({"lambda_dis": 0.0, "lambda_1": 0.0}, "must not both be 0"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_senseless_distillation_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Distillation(**values)
    assert message in str(caught.value)
