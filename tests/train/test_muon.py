"""Muon: updates that are nearly orthogonal, the same as PyTorch's in FP32 instead of bfloat16."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvmsr.config import preset
from dvmsr.model import DVMSR
from dvmsr.train.muon import Muon, hidden_matrices, orthogonalised

SIDES = st.integers(1, 70)
SHAPES = [(240, 60), (60, 120), (36, 120), (60, 60, 3, 3)]


@settings(max_examples=20, deadline=None)
@given(rows=SIDES, columns=SIDES, scale=st.sampled_from([1e-8, 1.0, 1e8]))
def test_singular_vectors_stay_and_singular_values_come_near_1(
    rows: int, columns: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    few = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, few, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(columns, few, generator=generator))[0]
    values = torch.linspace(0.2, 1, few)
    result = orthogonalised(scale * (left * values) @ right.T)
    between = left.T @ result @ right  # diagonal where the vectors have stayed
    reached = between.diagonal()
    assert reached.min() > 0.65, reached.min()
    assert reached.max() < 1.25, reached.max()
    assert (between - torch.diag(reached)).abs().max() < 1e-4  # FP32
    assert torch.linalg.matrix_norm(result) <= 1.25 * few**0.5  # nothing outside those spaces


def test_zero_stays_zero() -> None:
    assert not orthogonalised(torch.zeros(4, 7)).any()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_steps_are_those_of_pytorch(shape: tuple[int, ...]) -> None:
    theirs = pytest.importorskip("torch.optim._muon", reason="PyTorch 2.9 has Muon").Muon
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape))
    begin = weight.detach().clone()
    matrix = torch.nn.Parameter(begin.flatten(1).clone())
    ours = Muon([weight], lr=1e-2)
    reference = theirs([matrix], lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        weight.grad = torch.randn(shape)
        matrix.grad = weight.grad.flatten(1).clone()
        ours.step()
        reference.step()
    moved = weight.detach() - begin
    difference = (moved.flatten(1) - (matrix.detach() - begin.flatten(1))).norm() / moved.norm()
    assert difference < 3e-2  # theirs is bfloat16


def test_weights_without_a_gradient_and_those_of_channels_last_images() -> None:
    torch.manual_seed(0)
    untouched = torch.nn.Parameter(torch.ones(3, 3))
    plain = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    last = torch.nn.Parameter(plain.detach().contiguous(memory_format=torch.channels_last))
    plain.grad = torch.randn(8, 4, 3, 3)
    last.grad = plain.grad.contiguous(memory_format=torch.channels_last)
    Muon([untouched, plain, last], lr=1e-2).step()
    assert untouched.eq(1).all()
    assert torch.equal(plain, last)


def test_it_takes_the_matrices_inside_the_network() -> None:
    network = DVMSR(preset("student"))
    names = {id(weight): name for name, weight in network.named_parameters()}
    taken = {names[id(weight)] for weight in hidden_matrices(network)}
    block = "layers.{}.residual_group.blocks.{}.mixer.{}.weight"
    inside = {
        block.format(layer, number, name)
        for layer in range(4)
        for number in range(2)
        for name in ("in_proj", "x_proj", "out_proj")
    }
    convolutions = {f"layers.{layer}.conv.weight" for layer in range(4)}
    assert taken == inside | convolutions | {"conv_after_body.weight"}
