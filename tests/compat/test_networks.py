"""Small networks that call mamba-ssm as MambaIR, VMamba and Vim do, unchanged, over the stand-ins:
forward, gradients, exported, against the same network over the sequential FP64 reference."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dvmsr import compat
from dvmsr.ops.reference import causal_conv1d_reference, selective_scan_reference

SS2D = """
import torch
from torch import nn
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

class Network(nn.Module):
    '''Four directions over an image, as in MambaIR, around a scan that others may replace.'''
    def __init__(self, d=6, n=4, rank=2):
        super().__init__()
        self.d, self.n, self.rank = d, n, rank
        self.x_proj = nn.Parameter(torch.randn(4, rank + 2 * n, d) * d**-0.5)
        self.dt_proj = nn.Parameter(torch.randn(4, d, rank) * rank**-0.5)
        self.bias = nn.Parameter(torch.randn(4, d) - 2)
        self.A_logs = nn.Parameter(torch.arange(1.0, n + 1).log().repeat(4 * d, 1))
        self.Ds = nn.Parameter(torch.ones(4 * d))

    def scan(self, xs, dts, As, Bs, Cs, Ds, bias):
        return selective_scan_fn(xs, dts, As, Bs, Cs, Ds, z=None, delta_bias=bias,
                                 delta_softplus=True, return_last_state=False)

    def forward(self, x):
        B, C, H, W = x.shape
        L = H * W
        hwwh = torch.stack([x.view(B, -1, L), x.transpose(2, 3).contiguous().view(B, -1, L)], 1)
        xs = torch.cat([hwwh, hwwh.flip(-1)], 1)
        x_dbl = torch.einsum("bkdl,kcd->bkcl", xs, self.x_proj)
        dts, Bs, Cs = torch.split(x_dbl, [self.rank, self.n, self.n], 2)
        dts = torch.einsum("bkrl,kdr->bkdl", dts, self.dt_proj)
        y = self.scan(xs.view(B, -1, L), dts.contiguous().view(B, -1, L), -self.A_logs.exp(),
                      Bs, Cs, self.Ds, self.bias.view(-1)).view(B, 4, -1, L)
        inv = y[:, 2:4].flip(-1).view(B, 2, -1, L)
        wh = y[:, 1].view(B, -1, W, H).transpose(2, 3).contiguous().view(B, -1, L)
        invwh = inv[:, 1].view(B, -1, W, H).transpose(2, 3).contiguous().view(B, -1, L)
        return (y[:, 0] + inv[:, 0] + wh + invwh).view(B, -1, H, W)
"""

VMAMBA = (
    SS2D.replace("from mamba_ssm.ops.selective_scan_interface import selective_scan_fn", "")
    + """
import triton, triton.language as tl
import selective_scan_cuda_oflex

@triton.jit
def cross_scan(x: tl.tensor, n: tl.constexpr):
    pass

class Scan(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx, u, delta, A, B, C, D, bias, softplus, oflex):
        ctx.softplus = softplus
        out, x, *rest = selective_scan_cuda_oflex.fwd(
            u, delta, A, B, C, D, bias, softplus, 1, oflex)
        ctx.save_for_backward(u, delta, A, B, C, D, bias, x)
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx, dout, *args):
        u, delta, A, B, C, D, bias, x = ctx.saved_tensors
        if dout.stride(-1) != 1:
            dout = dout.contiguous()
        du, dd, dA, dB, dC, dD, db, *rest = selective_scan_cuda_oflex.bwd(
            u, delta, A, B, C, D, bias, dout, x, ctx.softplus, 1)
        return du, dd, dA, dB, dC, dD, db, None, None

class VNetwork(Network):
    def scan(self, xs, dts, As, Bs, Cs, Ds, bias):
        with torch.cuda.device(xs.device):
            oflex = xs.dtype != torch.float64
            return Scan.apply(xs, dts, As, Bs.contiguous(), Cs.contiguous(), Ds, bias, True, oflex)
"""
)

VIM = """
import torch
from torch import nn
import torch.nn.functional as F
from mamba_ssm.modules.mamba_simple import Mamba
from mamba_ssm.ops.selective_scan_interface import mamba_inner_fn_no_out_proj
from mamba_ssm.ops.triton.layer_norm import RMSNorm, rms_norm_fn
from mamba_ssm.utils.generation import GenerationMixin

class Network(nn.Module, GenerationMixin):
    '''Both directions with parameters of their own, as in Vim.'''
    def __init__(self):
        super().__init__()
        self.norm = RMSNorm(12)
        self.there, self.back = Mamba(12, d_state=4), Mamba(12, d_state=4)

    def direction(self, m, xz):
        return mamba_inner_fn_no_out_proj(
            xz, m.conv1d.weight, m.conv1d.bias, m.x_proj.weight, m.dt_proj.weight,
            -torch.exp(m.A_log), None, None, m.D, delta_bias=m.dt_proj.bias, delta_softplus=True)

    def forward(self, x):
        residual = x
        x, residual = rms_norm_fn(x, self.norm.weight, self.norm.bias, residual=residual,
                                  prenorm=True, residual_in_fp32=False, eps=self.norm.eps)
        xz = self.there.in_proj(x).transpose(1, 2)
        y = self.direction(self.there, xz) + self.direction(self.back, xz.flip([-1])).flip([-1])
        return F.linear(y.transpose(1, 2), self.there.out_proj.weight) + residual
"""

NETWORKS = {
    "mambair": (SS2D, "Network", (2, 6, 5, 7)),
    "vmamba": (VMAMBA, "VNetwork", (2, 6, 5, 7)),
    "vim": (VIM, "Network", (2, 11, 12)),
}


@pytest.fixture(params=NETWORKS)
def network(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[torch.nn.Module, torch.Tensor]]:
    """The network, imported from a file as a user's, and an input, both FP64."""
    source, name, shape = NETWORKS[request.param]
    (tmp_path / f"network_like_{request.param}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with compat.importing():
        module: ModuleType = __import__(f"network_like_{request.param}")
    torch.manual_seed(0)
    made = getattr(module, name)().double()
    yield made, torch.randn(shape, dtype=torch.float64, requires_grad=True)
    compat.uninstall()
    del sys.modules[module.__name__]


def sequential_scan(
    u: Any, delta: Any, A: Any, B: Any, C: Any, *others: Any, channel_major: bool = False
) -> Any:
    """In place of `dvmsr.ops.selective_scan`."""
    D, bias, h0, z, softplus = (*others, *[None] * 5)[:5]
    h0 = u.new_zeros(u.shape[0], *A.shape) if h0 is None else h0
    return selective_scan_reference(
        u, delta, A, B, C, D, bias, h0, z, bool(softplus), channel_major
    )


def sequential_conv(
    x: Any, weight: Any, bias: Any, tail: Any = None, activation: bool = True
) -> Any:
    tail = x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2]) if tail is None else tail
    return causal_conv1d_reference(x, weight, bias, tail, activation)


def results(network: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and gradients of the input and of all parameters that have one."""
    y = network(x)
    inputs = [x, *network.parameters()]
    gradients = torch.autograd.grad(y.square().sum(), inputs, allow_unused=True)
    return [y, *(gradient for gradient in gradients if gradient is not None)]


def test_equals_the_sequential_reference(
    network: tuple[torch.nn.Module, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = results(*network)
    monkeypatch.setattr("dvmsr.ops.selective_scan", sequential_scan)
    monkeypatch.setattr("dvmsr.ops.causal_conv1d", sequential_conv)
    truth = results(*network)
    assert len(found) == len(truth) > 5
    for one, other in zip(found, truth, strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max()


def test_fp32_and_autocast(network: tuple[torch.nn.Module, torch.Tensor]) -> None:
    module, x = network
    truth = module(x)
    single = module.float()
    assert (single(x.float()) - truth).abs().max() <= 1e-5 * truth.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        y = single(x.float())
    y.float().sum().backward()
    assert (y - truth).abs().max() <= 5e-2 * truth.abs().max()


@pytest.mark.slow
def test_exports_with_our_nodes(network: tuple[torch.nn.Module, torch.Tensor]) -> None:
    module, x = network[0].float().eval(), network[1].detach().float()
    axes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = torch.export.export(module, (x,), dynamic_shapes=axes)
    names = [str(node.target) for node in program.graph.nodes]
    assert "dvmsr.selective_scan.default" in names
    other = torch.randn(3, *x.shape[1:])
    torch.testing.assert_close(program.module()(other), module(other))
