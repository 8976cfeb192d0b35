"""PyTorch's operators over the CUDA kernels and their gradients, on an emulated device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from vectors import (
    CONV_CASES,
    HALF_INPUTS,
    SCAN_CASES,
    SCAN_INPUTS,
    ConvCase,
    ScanCase,
    conv_inputs,
    scan_inputs,
)

from dvmsr import ops
from dvmsr.errors import DvmsrError
from dvmsr.kernels import cuda
from dvmsr.ops import native_cpu, native_cuda
from dvmsr.ops.reference import causal_conv1d_reference, selective_scan_reference

Operator = Callable[..., tuple[Tensor, Tensor]]
TOLERANCES = {torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2.4e-2}
"""Largest error relative to the largest magnitude of the output or gradient."""
SHORT = [case for case in SCAN_CASES if 0 < case.length < 1000 and case.state <= 64]
LONG = [
    ScanCase(1, 300, 20, 16, "slow decay"),
    ScanCase(1, 300, 51, 16, "slow decay", groups=3, gate=False, softplus=False),
]
CHANNEL_MAJOR = [
    ScanCase(2, 33, 20, 16, channel_major=True),
    ScanCase(1, 33, 24, 1, groups=4, gate=False, channel_major=True),
]

_OPERATORS = {
    native_cpu.selective_scan: native_cuda.scan,
    native_cpu.selective_scan_backward: native_cuda.scan_backward,
    native_cpu.causal_conv1d: native_cuda.conv,
    native_cpu.causal_conv1d_backward: native_cuda.conv_backward,
}


@pytest.fixture(scope="module", autouse=True)
def _emulated(cuda_on_host: Path) -> Iterator[None]:
    """PyTorch's operators over the emulated device, for tensors in host memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVMSR_CUDA_LIBRARY", str(cuda_on_host))
        cuda.load.cache_clear()
        for operator, kernel in _OPERATORS.items():
            operator.register_kernel("cpu")(kernel)
        yield
        for operator in _OPERATORS:
            operator.register_kernel("cpu")(operator._init_fn)
        cuda.load.cache_clear()


def typed(inputs: dict[str, np.ndarray], dtype: torch.dtype) -> list[Tensor]:
    return [
        torch.tensor(value, dtype=dtype if name in HALF_INPUTS else torch.float32)
        for name, value in inputs.items()
    ]


def scan_of(case: ScanCase) -> Operator:
    """The operator in the form of the case: z may be missing among its inputs."""

    def scan(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        z = inputs[8] if case.gate else None
        return native_cpu.selective_scan(*inputs[:8], z, case.softplus, case.channel_major)

    return scan


def truth_of(case: ScanCase) -> Operator:
    form = {"delta_softplus": case.softplus, "channel_major": case.channel_major}
    return functools.partial(selective_scan_reference, **form)


def with_gradients(operator: Operator, inputs: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """Both outputs, and the gradients of their sum weighted with `weights`."""
    inputs = [t.clone().requires_grad_() for t in inputs]
    outputs = operator(*inputs)
    gradients = torch.autograd.grad(
        outputs,
        inputs,
        [
            w.to(outputs[0].dtype) if i == 0 else w.to(outputs[1].dtype)
            for i, w in enumerate(weights)
        ],
    )
    return [*(t.detach() for t in outputs), *gradients]


def check(
    operator: Operator,
    reference: Operator,
    inputs: list[Tensor],
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        shapes = [t.shape for t in operator(*inputs)]
    # Exact in every type, so that both see the same.
    weights = [torch.randint(-8, 9, s, generator=generator).double() / 8 for s in shapes]
    actual = with_gradients(operator, inputs, weights)
    truth = with_gradients(reference, [t.double() for t in inputs], weights)
    for i, (one, true) in enumerate(zip(actual, truth, strict=True)):
        assert one.shape == true.shape
        if true.numel():
            deviation = (one.double() - true).abs().max() / true.abs().max().clamp_min(1e-30)
            assert deviation <= TOLERANCES[dtype], f"result {i}: {deviation:.1e}"


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", [*SHORT, *LONG, *CHANNEL_MAJOR], ids=str)
def test_scan(case: ScanCase, dtype: torch.dtype) -> None:
    check(scan_of(case), truth_of(case), typed(scan_inputs(case), dtype), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", [case for case in CONV_CASES if case.length], ids=str)
def test_conv(case: ConvCase, dtype: torch.dtype) -> None:
    def conv(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return native_cpu.causal_conv1d(*inputs, case.activation)

    reference = functools.partial(causal_conv1d_reference, activation=case.activation)
    check(conv, reference, typed(conv_inputs(case), dtype), dtype)


@settings(max_examples=15, deadline=None)
@given(
    case=st.builds(
        lambda groups, channels, **sizes: ScanCase(
            channels=groups * channels, groups=groups, kind="usual", **sizes
        ),
        groups=st.integers(1, 3),
        channels=st.integers(1, 40),  # of a group
        batch=st.integers(1, 2),
        length=st.integers(1, 50),
        state=st.integers(1, 64),
        gate=st.booleans(),
        softplus=st.booleans(),
    ),
    seed=st.integers(0, 1000),
)
def test_scan_of_any_size(case: ScanCase, seed: int) -> None:
    inputs = typed(scan_inputs(case, seed), torch.float32)
    check(scan_of(case), truth_of(case), inputs, torch.float32)


@pytest.mark.parametrize("groups", [1, 4])
def test_parts_of_wider_tensors_are_not_copied(
    groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ScanCase(2, 37, 20, 16, groups=groups)
    inputs = scan_inputs(case)
    tensors = dict(zip(inputs, typed(inputs, torch.float32), strict=True))
    wide = torch.cat([tensors["u"], tensors["z"]], 2)
    of_token = [tensors["delta"], tensors["B"].flatten(2), tensors["C"].flatten(2)]
    delta, *rows = torch.cat(of_token, 2).split([20, 16 * groups, 16 * groups], 2)
    parts = dict(tensors, u=wide[..., :20], z=wide[..., 20:], delta=delta)
    parts |= {name: row.unflatten(2, (groups, 16)) for name, row in zip("BC", rows, strict=True)}
    scan = scan_of(case)
    dense = scan(*tensors.values())
    monkeypatch.setattr(native_cuda, "_dense", lambda _: pytest.fail("copied"))
    for one, other in zip(scan(*parts.values()), dense, strict=True):
        assert torch.equal(one, other)


def test_other_layouts() -> None:
    """As channels first, broadcast, with batch elements apart, with groups or states apart."""
    case = ScanCase(2, 9, 20, 16, groups=2)
    dense = dict(zip(SCAN_INPUTS, typed(scan_inputs(case), torch.float32), strict=True))
    u, B = dense["u"], dense["B"]
    layouts: list[dict[str, Tensor]] = [
        {"u": u.mT.contiguous().mT},
        {"u": u[:1].expand(2, -1, -1)},
        {"u": torch.stack([u, u], 1)[:, 0]},
        {"B": B.mT.contiguous().mT},
        {"B": B.transpose(1, 2).contiguous().transpose(1, 2)},
        {"B": B[:, :, :1].expand(-1, -1, 2, -1)},
        {"B": B.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)},
    ]
    for layout in layouts:
        other = dense | layout
        contiguous = {name: tensor.contiguous() for name, tensor in other.items()}
        for one, true in zip(
            scan_of(case)(*other.values()), scan_of(case)(*contiguous.values()), strict=True
        ):
            assert torch.equal(one, true)


@pytest.mark.parametrize("gate", [True, False])
def test_without_tokens_gradients_of_the_parameters_are_zero(gate: bool) -> None:
    case = ScanCase(2, 0, 6, 16, groups=2, gate=gate)
    inputs = typed(scan_inputs(case), torch.float32)
    gradients = native_cuda.scan_backward(inputs, inputs[0], inputs[7], True, False)
    assert len(gradients) == len(inputs)
    assert torch.equal(gradients[7], inputs[7])  # of h0, which is h_last
    assert not any(gradients[i].any() for i in (2, 5, 6))


def test_results_do_not_change_from_run_to_run() -> None:
    inputs = typed(scan_inputs(ScanCase(2, 70, 33, 16, groups=3)), torch.float32)
    first = native_cuda.scan_backward(inputs, inputs[0], inputs[7], True, False)
    second = native_cuda.scan_backward(inputs, inputs[0], inputs[7], True, False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_too_many_states() -> None:
    inputs = typed(scan_inputs(ScanCase(1, 3, 5, 65)), torch.float32)
    with pytest.raises(DvmsrError, match=r"CUDA failed in selective_scan \(invalid argument\)"):
        native_cuda.scan(*inputs, True, False)


class OnGpu(Tensor):
    """A tensor in host memory that says it is on a GPU."""

    is_cuda = True


@pytest.fixture
def scan_on_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Which way `selective_scan` takes: `own`, `mamba-ssm` or `PyTorch`."""

    def chosen(name: str) -> Operator:
        def way(u: Tensor, *others: object) -> tuple[Tensor, Tensor]:
            ways.append(name)
            return u, u

        return way

    ways: list[str] = []
    monkeypatch.setattr(native_cpu, "selective_scan", chosen("own"))
    monkeypatch.setattr(ops, "selective_scan_chunked", chosen("PyTorch"))

    def run(kernels: bool, mamba: bool, dtype: torch.dtype, state: int = 16) -> str:
        monkeypatch.setattr(ops, "_has_cuda_kernels", lambda: kernels)
        monkeypatch.setattr(ops, "_mamba_scan", lambda: chosen("mamba-ssm") if mamba else None)
        inputs = typed(scan_inputs(ScanCase(1, 3, 4, state)), dtype)
        u = inputs[0].as_subclass(OnGpu)
        monkeypatch.setattr(OnGpu, "device", torch.device("cuda"), raising=False)
        ops.selective_scan(u, *inputs[1:7], z=inputs[8])  # no state: mamba-ssm takes none
        return ways.pop()

    return run


@pytest.mark.parametrize(
    ("kernels", "mamba", "dtype", "state", "way"),
    [
        (True, True, torch.float16, 16, "own"),
        (True, False, torch.float32, 64, "own"),
        (True, True, torch.float32, 65, "mamba-ssm"),
        (True, False, torch.float64, 16, "PyTorch"),
        (False, True, torch.bfloat16, 16, "mamba-ssm"),
        (False, False, torch.bfloat16, 16, "PyTorch"),
    ],
)
def test_precedence(
    scan_on_gpu: Callable[..., str], kernels: bool, mamba: bool, dtype: torch.dtype, state: int,
    way: str,
) -> None:  # fmt: skip
    assert scan_on_gpu(kernels, mamba, dtype, state) == way


@pytest.mark.parametrize("channel_major", [False, True], ids=["tokens", "channels"])
def test_mamba_ssm_gets_channel_major_tensors(
    channel_major: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, ...]] = []

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, *others: object) -> Any:
        z = others[2]
        assert isinstance(z, Tensor)
        for tensor in (u, delta, B, z):
            assert tensor.is_contiguous()
            given.append(tuple(tensor.shape))
        return u, A

    monkeypatch.setattr(ops, "_has_cuda_kernels", lambda: False)
    monkeypatch.setattr(ops, "_mamba_scan", lambda: scan)
    case = ScanCase(2, 7, 4, 3, groups=2, channel_major=channel_major)
    inputs = typed(scan_inputs(case), torch.float32)
    u = inputs[0].as_subclass(OnGpu)
    y, _ = ops.selective_scan(u, *inputs[1:7], z=inputs[8], channel_major=channel_major)
    assert given == [(2, 4, 7), (2, 4, 7), (2, 2, 3, 7), (2, 4, 7)]
    assert torch.equal(y, u)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_kernels_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise DvmsrError("no nvcc; install it")

    monkeypatch.setattr(native_cuda, "register", fail)
    ops._has_cuda_kernels.cache_clear()
    with pytest.warns(UserWarning, match="takes their place: no nvcc; install it"):
        assert not ops._has_cuda_kernels()
    ops._has_cuda_kernels.cache_clear()
