"""PyTorch's operators over the CUDA kernels and their gradients, on an emulated device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

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

TOLERANCES = {torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2.4e-2}
"""Largest error relative to the largest magnitude of the output or gradient."""
SHORT = [case for case in SCAN_CASES if 0 < case.length < 1000]
LONG = ScanCase(1, 300, 20, 16, "slow decay")

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


def with_gradients(
    operator: Callable[..., tuple[Tensor, Tensor]], inputs: list[Tensor], weights: list[Tensor]
) -> list[Tensor]:
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
    operator: Callable[..., tuple[Tensor, Tensor]],
    reference: Callable[..., tuple[Tensor, Tensor]],
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
@pytest.mark.parametrize("case", [*SHORT, LONG], ids=str)
def test_scan(case: ScanCase, dtype: torch.dtype) -> None:
    inputs = typed(scan_inputs(case), dtype)
    check(native_cpu.selective_scan, selective_scan_reference, inputs, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", [case for case in CONV_CASES if case.length], ids=str)
def test_conv(case: ConvCase, dtype: torch.dtype) -> None:
    inputs = typed(conv_inputs(case), dtype)
    check(native_cpu.causal_conv1d, causal_conv1d_reference, inputs, dtype)


@settings(max_examples=10, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 2), st.integers(1, 50), st.integers(1, 40), st.integers(1, 64)),
    seed=st.integers(0, 1000),
)
def test_scan_of_any_size(sizes: tuple[int, int, int, int], seed: int) -> None:
    inputs = typed(scan_inputs(ScanCase(*sizes), seed), torch.float32)
    check(native_cpu.selective_scan, selective_scan_reference, inputs, torch.float32)


def test_parts_of_wider_tensors_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = scan_inputs(ScanCase(2, 37, 20, 16))
    tensors = dict(zip(inputs, typed(inputs, torch.float32), strict=True))
    wide = torch.cat([tensors["u"], tensors["z"]], 2)
    rows = torch.cat([tensors["delta"], tensors["B"], tensors["C"]], 2)
    parts = dict(tensors, u=wide[..., :20], z=wide[..., 20:])
    parts |= {"delta": rows[..., :20], "B": rows[..., 20:36], "C": rows[..., 36:]}
    dense = native_cpu.selective_scan(*tensors.values())
    monkeypatch.setattr(native_cuda, "_dense", lambda _: pytest.fail("copied"))
    for one, other in zip(native_cpu.selective_scan(*parts.values()), dense, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("layout", ["channels first", "broadcast", "batch elements apart"])
def test_other_layouts(layout: str) -> None:
    inputs = typed(scan_inputs(ScanCase(2, 9, 20, 16)), torch.float32)
    u = inputs[0]
    other = {
        "channels first": u.transpose(1, 2).contiguous().transpose(1, 2),
        "broadcast": u[:1].expand(2, -1, -1),
        "batch elements apart": torch.stack([u, u], 1)[:, 0],
    }[layout]
    dense = [other.contiguous(), *inputs[1:]]
    for one, true in zip(
        native_cpu.selective_scan(other, *inputs[1:]),
        native_cpu.selective_scan(*dense),
        strict=True,
    ):
        assert torch.equal(one, true)


def test_without_tokens_gradients_of_the_parameters_are_zero() -> None:
    inputs = typed(scan_inputs(ScanCase(2, 0, 5, 16)), torch.float32)
    gradients = native_cuda.scan_backward(inputs, inputs[0], inputs[-1])
    assert torch.equal(gradients[-1], inputs[-1])  # of h0, which is h_last
    assert not any(gradients[i].any() for i in (2, 5, 7))


def test_results_do_not_change_from_run_to_run() -> None:
    inputs = typed(scan_inputs(ScanCase(2, 70, 33, 16)), torch.float32)
    first = native_cuda.scan_backward(inputs, inputs[0], inputs[-1])
    second = native_cuda.scan_backward(inputs, inputs[0], inputs[-1])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_too_many_states() -> None:
    inputs = typed(scan_inputs(ScanCase(1, 3, 5, 65)), torch.float32)
    with pytest.raises(DvmsrError, match=r"CUDA failed in selective_scan \(invalid argument\)"):
        native_cuda.scan(*inputs)


class OnGpu(Tensor):
    """A tensor in host memory that says it is on a GPU."""

    is_cuda = True


@pytest.fixture
def scan_on_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Which way `selective_scan` takes: `own`, `mamba-ssm` or `PyTorch`."""

    def chosen(name: str) -> Callable[..., tuple[Tensor, Tensor]]:
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
        ops.selective_scan(u, *inputs[1:-1])
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_kernels_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise DvmsrError("no nvcc; install it")

    monkeypatch.setattr(native_cuda, "register", fail)
    ops._has_cuda_kernels.cache_clear()
    with pytest.warns(UserWarning, match="takes their place: no nvcc; install it"):
        assert not ops._has_cuda_kernels()
    ops._has_cuda_kernels.cache_clear()
