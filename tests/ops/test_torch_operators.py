"""The PyTorch operators: values and gradients on every path, shapes, and what bad input gets."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from vectors import (
    CONV_CASES,
    CONV_INPUTS,
    SCAN_CASES,
    SCAN_INPUTS,
    TOLERANCE,
    ConvCase,
    ScanCase,
    conv_inputs,
    conv_truth,
    error,
    scan_inputs,
    scan_truth,
)

from dvmsr.kernels import cpu
from dvmsr.ops import causal_conv1d, selective_scan
from dvmsr.ops.chunked import causal_conv1d_shifted, selective_scan_chunked
from dvmsr.ops.reference import causal_conv1d_reference, selective_scan_reference

SCANS = {
    "default": selective_scan,
    "chunked": selective_scan_chunked,
    "reference": selective_scan_reference,
}
CONVS = {
    "default": causal_conv1d,
    "shifted": causal_conv1d_shifted,
    "reference": causal_conv1d_reference,
}


def tensors(
    inputs: dict[str, np.ndarray], dtype: torch.dtype = torch.float64, grad: bool = False
) -> list[torch.Tensor]:
    return [torch.tensor(v, dtype=dtype, requires_grad=grad) for v in inputs.values()]


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
def test_scan_in_fp64(case: ScanCase, name: str) -> None:
    inputs = scan_inputs(case)
    assert tuple(inputs) == SCAN_INPUTS
    for actual, truth in zip(SCANS[name](*tensors(inputs)), scan_truth(inputs), strict=True):
        assert error(actual.numpy(), truth) <= TOLERANCE["float64"] * 100


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_conv_in_fp64(case: ConvCase, name: str) -> None:
    inputs = conv_inputs(case)
    assert tuple(inputs) == CONV_INPUTS
    for actual, truth in zip(CONVS[name](*tensors(inputs)), conv_truth(inputs), strict=True):
        assert error(actual.numpy(), truth) <= TOLERANCE["float64"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "chunked"])
@pytest.mark.parametrize("shape", [(2, 5, 3, 2), (1, 40, 2, 3), (1, 3, 5, 16)], ids=str)
def test_scan_gradcheck(shape: tuple[int, int, int, int], name: str) -> None:
    inputs = tensors(scan_inputs(ScanCase(*shape, "slow decay")), grad=True)
    assert torch.autograd.gradcheck(SCANS[name], inputs)


@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (1, 2, 5, 4), (1, 1, 9, 2)], ids=str)
def test_conv_gradcheck(shape: tuple[int, int, int, int]) -> None:
    inputs = tensors(conv_inputs(ConvCase(*shape)), grad=True)
    assert torch.autograd.gradcheck(causal_conv1d, inputs)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", [(2, 100, 20, 16), (1, 65, 41, 16), (3, 33, 9, 5)], ids=str)
def test_scan_gradients_in_fp32_equal_the_reference(
    shape: tuple[int, int, int, int], threads: int
) -> None:
    inputs = scan_inputs(ScanCase(*shape))
    torch.manual_seed(1)
    wide, narrow = tensors(inputs, grad=True), tensors(inputs, torch.float32, grad=True)
    y, h_last = selective_scan_reference(*wide)
    y_grad, h_grad = torch.randn_like(y), torch.randn_like(h_last)
    expected = torch.autograd.grad((y, h_last), wide, (y_grad, h_grad))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual = torch.autograd.grad(
            selective_scan(*narrow), narrow, (y_grad.float(), h_grad.float())
        )
    finally:
        torch.set_num_threads(before)
    for name, a, e in zip(SCAN_INPUTS, actual, expected, strict=True):
        assert error(a.numpy(), e.numpy()) <= 1e-5, name


def test_gradients_do_not_depend_on_scheduling() -> None:
    inputs = tensors(scan_inputs(ScanCase(4, 50, 24, 16)), torch.float32, grad=True)
    runs = [
        torch.autograd.grad(selective_scan(*inputs)[0].square().sum(), inputs) for _ in range(3)
    ]
    for run in runs[1:]:
        for a, b in zip(run, runs[0], strict=True):
            assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.skipif(cpu.library_path() is None, reason="built without native operators")
def test_custom_operators_pass_opcheck() -> None:
    from dvmsr.ops import native_cpu

    scan = tuple(tensors(scan_inputs(ScanCase(1, 6, 4, 3)), torch.float32, grad=True))
    conv = tuple(tensors(conv_inputs(ConvCase(1, 6, 4, 4)), torch.float32, grad=True))
    torch.library.opcheck(native_cpu.selective_scan, scan)
    torch.library.opcheck(native_cpu.causal_conv1d, conv)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_activations_keep_their_type(dtype: torch.dtype) -> None:
    inputs = scan_inputs(ScanCase(1, 40, 8, 16))
    narrow = [
        torch.tensor(v).to(dtype if k in ("u", "delta", "B", "C", "z") else torch.float32)
        for k, v in inputs.items()
    ]
    y, h_last = selective_scan(*narrow)
    truth, _ = scan_truth({k: v.double().numpy() for k, v in zip(SCAN_INPUTS, narrow, strict=True)})
    assert (y.dtype, h_last.dtype) == (dtype, torch.float32)
    assert error(y.double().numpy(), truth) <= (2e-3 if dtype == torch.float16 else 1e-2)


@pytest.mark.slow
def test_chunked_scan_keeps_one_chunk_in_memory() -> None:
    """Peak memory of a forward and backward pass over 256 chunks, against one (B, L, D, N)."""
    script = """
import resource, torch
from dvmsr.ops.chunked import selective_scan_chunked
B, L, D, N = 1, 32768, 32, 16
make = lambda *s: torch.randn(*s, requires_grad=True)
def run(L):
    inputs = [make(B, L, D), make(B, L, D), (-torch.rand(D, N)).requires_grad_(), make(B, L, N),
              make(B, L, N), make(D), make(B, L, D), make(D), make(B, D, N)]
    selective_scan_chunked(*inputs)[0].sum().backward()
run(256)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(L)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * B * L * D * N))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 1.5


def test_wrong_shapes_name_the_tensor() -> None:
    inputs = tensors(scan_inputs(ScanCase(1, 5, 4, 3)))
    inputs[3] = inputs[3][:, :4]
    with pytest.raises(ValueError, match=r"B is \(1, 4, 3\), should be \(1, 5, 3\)"):
        selective_scan(*inputs)
    inputs = tensors(conv_inputs(ConvCase(1, 5, 4, 3)))
    inputs[3] = inputs[3][:, :1]
    with pytest.raises(ValueError, match=r"causal_conv1d: tail is \(1, 1, 4\)"):
        causal_conv1d(*inputs)
