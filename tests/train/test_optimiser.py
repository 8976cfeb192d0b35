"""When training gives up, and that FP16 skips what overflows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dvmsr.config import DVMSRConfig
from dvmsr.model import DVMSR
from dvmsr.train.config.settings import OPTIMISERS, Settings
from dvmsr.train.objective import Objective
from dvmsr.train.optimiser import DivergedError, Optimiser, Watch


def test_a_noisy_but_falling_loss_is_sound() -> None:
    rng = np.random.default_rng(0)
    watch = Watch()
    for step in range(2000):
        watch.check(0.5 * math.exp(-step / 300) + 0.02 * rng.lognormal(sigma=0.8))
    assert watch.lowest < 0.05


def test_a_single_outlier_is_sound_and_a_rise_is_not() -> None:
    watch = Watch()
    for step in range(300):
        watch.check(1.0 if step == 200 else 0.02)
    with pytest.raises(DivergedError, match=r"the loss grew to 0\.\d+ from 0\.02"):
        for _ in range(300):
            watch.check(0.3)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_not_sound(loss: float) -> None:
    with pytest.raises(DivergedError, match=f"the loss became {loss}"):
        Watch().check(loss)


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_fp16_skips_steps_that_overflow_and_lowers_its_scale(kind: str) -> None:
    torch.manual_seed(0)
    model = DVMSR(DVMSRConfig(channels=8, depths=(1,), state=4, scale=2))
    settings = Settings(steps=1, precision="fp16", optimiser=kind)
    optimiser = Optimiser(Objective(model), settings)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    hook = model.conv_first.bias.register_hook(lambda gradient: gradient * torch.inf)
    pictures = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 8, 8)
    scale = optimiser.scaler.get_scale()
    optimiser.step(*pictures, rate=1e-3)
    assert optimiser.scaler.get_scale() < scale
    assert all(map(torch.equal, model.parameters(), before))
    hook.remove()
    while all(map(torch.equal, model.parameters(), before)):
        optimiser.step(*pictures, rate=1e-3)  # ends when the scale suits the gradients
    again = Optimiser(Objective(model), settings)
    again.load_state(optimiser.state())
    assert again.scaler.get_scale() == optimiser.scaler.get_scale() != scale


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_every_weight_that_is_trained_moves_once_per_step(kind: str) -> None:
    torch.manual_seed(0)
    model = DVMSR(DVMSRConfig(channels=8, depths=(1,), state=4, scale=2))
    optimiser = Optimiser(Objective(model), Settings(steps=1, optimiser=kind))
    held = [id(weight) for part in optimiser.parts.values() for weight in weights_of(part)]
    assert sorted(held) == sorted(map(id, model.parameters()))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimiser.step(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16), rate=1e-3)
    still = {name for name, weight in model.named_parameters() if torch.equal(weight, before[name])}
    assert not still


def test_adam_takes_its_betas() -> None:
    model = DVMSR(DVMSRConfig(channels=8, depths=(1,), state=4, scale=2))
    adam = Optimiser(Objective(model), Settings(steps=1, beta1=0.8, beta2=0.95)).parts["adam"]
    assert adam.defaults["betas"] == (0.8, 0.95)


def weights_of(part: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [weight for group in part.param_groups for weight in group["params"]]
