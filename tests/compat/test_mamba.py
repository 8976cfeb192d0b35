"""The Mamba module and its blocks: parameters, the definition, decoding, training."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dvmsr.compat import NotSupportedError
from dvmsr.compat.generation import InferenceParams
from dvmsr.compat.mamba import Block, BlockWithMlp, Mamba
from dvmsr.compat.norm import RMSNorm
from dvmsr.ops.reference import causal_conv1d_reference, selective_scan_reference


def network(**options: Any) -> Mamba:
    torch.manual_seed(0)
    return Mamba(24, d_state=8, **options)


def test_parameters_are_mamba_ssms() -> None:
    shapes = {name: tuple(p.shape) for name, p in Mamba(40, bias=True).state_dict().items()}
    assert shapes == {
        "A_log": (80, 16),
        "D": (80,),
        "in_proj.weight": (160, 40),
        "in_proj.bias": (160,),
        "conv1d.weight": (80, 1, 4),
        "conv1d.bias": (80,),
        "x_proj.weight": (3 + 32, 80),
        "dt_proj.weight": (80, 3),
        "dt_proj.bias": (80,),
        "out_proj.weight": (40, 80),
        "out_proj.bias": (40,),
    }


def test_initialisation() -> None:
    mamba = Mamba(64, d_state=4, dt_min=0.01, dt_max=0.2, dt_init="constant", dt_scale=2.0)
    steps = F.softplus(mamba.dt_proj.bias)
    assert ((steps > 0.0099) & (steps < 0.201)).all()
    assert steps.log().std() > 0.5  # uniform on a logarithmic scale: 0.86
    torch.testing.assert_close(mamba.A_log.exp(), torch.arange(1.0, 5).expand(128, 4))
    assert (mamba.D == 1).all()
    assert (mamba.dt_proj.weight == 2 / math.sqrt(4)).all()
    assert mamba.A_log._no_weight_decay
    assert mamba.D._no_weight_decay
    assert mamba.dt_proj.bias._no_reinit
    with pytest.raises(NotSupportedError, match="dt_init 'zero'"):
        Mamba(8, dt_init="zero")


def test_two_directions_are_two_mambas() -> None:
    """Vim's v2: what the weights called _b make of the reversed tokens is added before out_proj."""
    both = network(bimamba_type="v2", if_divide_out=True, init_layer_scale=0.5).double()
    weights = both.state_dict()
    assert {name for name in weights if "_b" in name} == {
        "conv1d_b.weight", "conv1d_b.bias", "x_proj_b.weight", "dt_proj_b.weight",
        "dt_proj_b.bias", "A_b_log", "D_b",
    }  # fmt: skip
    torch.nn.init.normal_(both.D_b)
    torch.nn.init.normal_(both.A_b_log)
    forth, back = network().double(), network().double()
    plain = {name: value for name, value in both.state_dict().items() if "_b" not in name}
    own = {name.replace("_b", ""): v for name, v in both.state_dict().items() if "_b" in name}
    del plain["gamma"]
    forth.load_state_dict(plain)
    back.load_state_dict({**plain, **own})
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    expected = (forth(x) + back(x.flip(1)).flip(1)) / 2 * 0.5
    torch.testing.assert_close(both(x), expected)


def test_a_second_direction_with_its_own_A_alone() -> None:
    both = network(bimamba_type="v1").double()
    assert [name for name in both.state_dict() if "_b" in name] == ["A_b_log"]
    torch.nn.init.normal_(both.A_b_log)
    assert both(torch.randn(1, 5, 24, dtype=torch.float64)).shape == (1, 5, 24)
    with pytest.raises(NotSupportedError, match="bimamba_type 'v3' is not none, v1 or v2"):
        network(bimamba_type="v3")
    with pytest.raises(NotSupportedError, match="one direction only"):
        both(torch.randn(1, 5, 24, dtype=torch.float64), InferenceParams(8, 1))


@pytest.mark.parametrize("options", [{}, {"bias": True, "conv_bias": False, "d_conv": 3}], ids=str)
def test_is_its_definition(options: dict[str, Any]) -> None:
    mamba = network(**options).double()
    x = torch.randn(2, 17, 24, dtype=torch.float64)
    u, z = mamba.in_proj(x).chunk(2, -1)
    bias = torch.zeros(48).double() if mamba.conv1d.bias is None else mamba.conv1d.bias
    tail = u.new_zeros(2, mamba.d_conv - 1, 48)
    u, _ = causal_conv1d_reference(u, mamba.conv1d.weight[:, 0], bias, tail)
    dt, B, C = mamba.x_proj(u).split([2, 8, 8], -1)
    y, _ = selective_scan_reference(
        u,
        dt @ mamba.dt_proj.weight.T,
        -mamba.A_log.exp(),
        B[:, :, None],
        C[:, :, None],
        mamba.D,
        mamba.dt_proj.bias,
        u.new_zeros(2, 48, 8),
        z,
    )
    torch.testing.assert_close(mamba(x), mamba.out_proj(y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("prompt", [1, 2, 9])
def test_decodes_token_by_token(prompt: int) -> None:
    """A prompt at once, then one token after the other, as the whole sequence at once."""
    mamba = network(layer_idx=0)
    x = torch.randn(2, 14, 24)
    whole = mamba(x)
    state = InferenceParams(max_seqlen=14, max_batch_size=2)
    parts = [mamba(x[:, :prompt], inference_params=state)]
    for t in range(prompt, 14):
        state.seqlen_offset = t
        parts.append(mamba(x[:, t : t + 1], inference_params=state))
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_step_with_allocated_states() -> None:
    mamba = network()
    x = torch.randn(2, 5, 24)
    conv_state, ssm_state = mamba.allocate_inference_cache(2, 5)
    assert (conv_state.shape, ssm_state.shape) == ((2, 48, 4), (2, 48, 8))
    parts = [mamba.step(x[:, t : t + 1], conv_state, ssm_state)[0] for t in range(5)]
    torch.testing.assert_close(torch.cat(parts, 1), mamba(x))
    with pytest.raises(NotSupportedError, match="2 tokens"):
        mamba.step(x[:, :2], conv_state, ssm_state)
    with pytest.raises(ValueError, match="layer_idx"):
        mamba(x, inference_params=InferenceParams(5, 2))


def test_learns() -> None:
    mamba = network()
    x = torch.randn(4, 12, 24)
    target = x.cumsum(1).tanh()
    optimiser = torch.optim.Adam(mamba.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = F.mse_loss(mamba(x), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_autocast_and_halves() -> None:
    mamba = network()
    x = torch.randn(2, 30, 24)
    truth = mamba(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = mamba(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    half = copy.deepcopy(mamba).bfloat16()(x.bfloat16())
    for other in (y, half):
        assert (other - truth).abs().max() <= 3e-2 * truth.abs().max()


@pytest.mark.slow
def test_compiles_in_one_graph() -> None:
    mamba = network()
    x = torch.randn(2, 30, 24)
    compiled = torch.compile(mamba, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), mamba(x))


@pytest.mark.slow
def test_exports_with_two_nodes() -> None:
    mamba = network().eval()
    axes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=4096)},)
    program = torch.export.export(mamba, (torch.randn(2, 30, 24),), dynamic_shapes=axes)
    names = [str(n.target) for n in program.graph.nodes if str(n.target).startswith("dvmsr.")]
    assert names == ["dvmsr.causal_conv1d.default", "dvmsr.selective_scan.default"]
    x = torch.randn(3, 71, 24)
    torch.testing.assert_close(program.module()(x), mamba(x))


@pytest.mark.parametrize("norm", [nn.LayerNorm, RMSNorm])
@pytest.mark.parametrize("mlp", [False, True], ids=["plain", "mlp"])
def test_fused_blocks_compute_what_plain_ones_do(norm: Any, mlp: bool) -> None:
    def stack(fused: bool) -> list[Block]:
        torch.manual_seed(0)
        mixer, layer = (lambda dim: Mamba(dim, d_state=4)), (lambda dim: nn.Linear(dim, dim))
        make: Any = BlockWithMlp if mlp else Block
        middle = [layer] if mlp else []
        return [make(24, mixer, *middle, norm, fused, True) for _ in range(2)]

    results = []
    for fused in (False, True):
        x, residual = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1)), None
        for block in stack(fused):
            x, residual = block(x, residual)
        results.append((x, residual))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_blocks_refuse_norms_that_they_cannot_fuse() -> None:
    with pytest.raises(TypeError, match="LayerNorm or RMSNorm"):
        BlockWithMlp(8, Mamba, nn.Identity, nn.BatchNorm1d, fused_add_norm=True)
