"""The PyTorch operators: values and gradients on every path, shapes, and what bad input gets."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from vectors import (
    CHANNEL_MAJOR_CASES,
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


def scan_of(name: str, case: ScanCase) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The implementation in the form of the case; z may be missing among its inputs."""
    form = {"delta_softplus": case.softplus, "channel_major": case.channel_major}
    return functools.partial(SCANS[name], **form)


def tensors(
    inputs: dict[str, np.ndarray], dtype: torch.dtype = torch.float64, grad: bool = False
) -> list[torch.Tensor]:
    """In the operator's order; without z where it is left off."""
    return [torch.tensor(v, dtype=dtype, requires_grad=grad) for v in inputs.values()]


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, channel-major, and every second of a wider tensor."""
    wide = torch.full((*tensor.shape, 2), float("nan"), dtype=tensor.dtype).transpose(0, -2)
    part = wide[..., 0].transpose(0, -1)
    return part.copy_(tensor.detach()).requires_grad_(tensor.requires_grad)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("case", [*SCAN_CASES, *CHANNEL_MAJOR_CASES], ids=str)
def test_scan_in_fp64(case: ScanCase, name: str) -> None:
    inputs = scan_inputs(case)
    assert tuple(inputs) == SCAN_INPUTS[: len(inputs)]
    outputs = scan_of(name, case)(*tensors(inputs))
    truths = scan_truth(inputs, case.softplus, case.channel_major)
    for actual, truth in zip(outputs, truths, strict=True):
        assert error(actual.numpy(), truth) <= TOLERANCE["float64"] * 100


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_conv_in_fp64(case: ConvCase, name: str) -> None:
    inputs = conv_inputs(case)
    assert tuple(inputs) == CONV_INPUTS
    outputs = CONVS[name](*tensors(inputs), activation=case.activation)
    for actual, truth in zip(outputs, conv_truth(inputs, case.activation), strict=True):
        assert error(actual.numpy(), truth) <= TOLERANCE["float64"]


def test_what_is_left_off_is_zero() -> None:
    inputs = scan_inputs(ScanCase(2, 7, 6, 3, groups=2, gate=False))
    for name in ("D", "delta_bias", "h0"):
        inputs[name][:] = 0
    for actual, truth in zip(selective_scan(*tensors(inputs)[:5]), scan_truth(inputs), strict=True):
        assert error(actual.numpy(), truth) <= TOLERANCE["float64"]
    inputs = conv_inputs(ConvCase(2, 7, 6, 3))
    for name in ("bias", "tail"):
        inputs[name][:] = 0
    for actual, truth in zip(causal_conv1d(*tensors(inputs)[:2]), conv_truth(inputs), strict=True):
        assert error(actual.numpy(), truth) <= TOLERANCE["float64"]


@pytest.mark.parametrize("channel_major", [False, True], ids=["tokens", "channels"])
@pytest.mark.parametrize("name", SCANS)
def test_scan_takes_any_strides(name: str, channel_major: bool) -> None:
    case = ScanCase(2, 33, 24, 8, groups=4, channel_major=channel_major)
    dense = tensors(scan_inputs(case), grad=True)
    parts = [strided(tensor) for tensor in dense]
    assert not any(part.is_contiguous() for part in parts)
    outputs = [scan_of(name, case)(*arguments) for arguments in (dense, parts)]
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    gradients = [
        torch.autograd.grad(y.square().sum() + h.sum(), arguments)
        for (y, h), arguments in zip(outputs, (dense, parts), strict=True)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CONVS)
def test_conv_takes_any_strides(name: str) -> None:
    dense = tensors(conv_inputs(ConvCase(2, 33, 24, 4)), grad=True)
    parts = [strided(tensor) for tensor in dense]
    for one, other in zip(CONVS[name](*dense), CONVS[name](*parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("applied", [True, False], ids=["softplus", "no_softplus"])
@pytest.mark.parametrize("gate", [True, False], ids=["gate", "no_gate"])
@pytest.mark.parametrize("channel_major", [False, True], ids=["tokens", "channels"])
def test_operators_compile(channel_major: bool, gate: bool, applied: bool) -> None:
    form = gate, applied, channel_major
    case = ScanCase(1, 9, 8, 4, "usual", 2, *form)
    scan = tensors(scan_inputs(case), torch.float32, grad=True)
    conv = tensors(conv_inputs(ConvCase(1, 9, 8, 4)), torch.float32, grad=True)

    def run(scan: list[torch.Tensor], conv: list[torch.Tensor]) -> torch.Tensor:
        y, h = scan_of("default", case)(*scan)
        y = y.mT if channel_major else y
        x, tail = causal_conv1d(*conv, activation=applied)
        return (y * x).sum() + h.sum() + tail.sum()

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    inputs = scan + conv
    eager = torch.autograd.grad(run(scan, conv), inputs)
    for one, other in zip(torch.autograd.grad(compiled(scan, conv), inputs), eager, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("channel_major", [False, True], ids=["tokens", "channels"])
def test_operators_under_autocast(channel_major: bool) -> None:
    """Halves meet FP32 tensors, as where an autocast linear layer feeds the scan."""
    case = ScanCase(1, 40, 8, 16, groups=2, channel_major=channel_major)
    inputs = tensors(scan_inputs(case), torch.float32)
    halves = [inputs[0].bfloat16(), inputs[1].bfloat16()]
    with torch.autocast("cpu", torch.bfloat16):
        y, h_last = scan_of("default", case)(*halves, *inputs[2:])
    arrays = {k: v.numpy() for k, v in zip(SCAN_INPUTS, inputs, strict=True)}
    truth, _ = scan_truth(arrays, channel_major=channel_major)
    assert (y.dtype, h_last.dtype) == (torch.bfloat16, torch.float32)
    assert error(y.double().numpy(), truth) <= 2e-2


GRADIENTS = [
    ScanCase(2, 5, 3, 2, "slow decay"),
    ScanCase(1, 40, 2, 3, "slow decay"),
    ScanCase(1, 3, 5, 16, "slow decay"),
    ScanCase(2, 5, 6, 2, "slow decay", groups=3),
    ScanCase(1, 5, 4, 1, "slow decay", groups=2, gate=False),
    ScanCase(1, 6, 4, 2, "slow decay", groups=2, softplus=False),
    ScanCase(2, 5, 6, 2, "slow decay", groups=3, channel_major=True),
    ScanCase(1, 5, 4, 1, "slow decay", groups=2, gate=False, channel_major=True),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "chunked"])
@pytest.mark.parametrize("case", GRADIENTS, ids=str)
def test_scan_gradcheck(case: ScanCase, name: str) -> None:
    inputs = tensors(scan_inputs(case), grad=True)
    assert torch.autograd.gradcheck(scan_of(name, case), inputs)


@pytest.mark.parametrize("activation", [True, False], ids=["silu", "none"])
@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (1, 2, 5, 4), (1, 1, 9, 2)], ids=str)
def test_conv_gradcheck(shape: tuple[int, int, int, int], activation: bool) -> None:
    inputs = tensors(conv_inputs(ConvCase(*shape)), grad=True)
    assert torch.autograd.gradcheck(lambda *tensors: causal_conv1d(*tensors, activation), inputs)


FP32_GRADIENTS = [
    ScanCase(2, 100, 20, 16),
    ScanCase(1, 65, 41, 16),
    ScanCase(3, 33, 9, 5),
    ScanCase(2, 70, 96, 16, groups=4),
    ScanCase(1, 70, 40, 1, groups=4, gate=False),
    ScanCase(1, 70, 14, 8, groups=2, gate=False),
    ScanCase(1, 33, 12, 8, groups=2, softplus=False),
    ScanCase(1, 20, 6, 256, groups=2, gate=False),
    ScanCase(2, 100, 20, 16, channel_major=True),
    ScanCase(2, 70, 40, 1, groups=4, gate=False, channel_major=True),
    ScanCase(1, 31, 17, 3, channel_major=True),
    ScanCase(1, 65, 66, 16, groups=2, gate=False, channel_major=True),
    ScanCase(2, 64, 24, 2, groups=4, softplus=False, channel_major=True),
]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("case", FP32_GRADIENTS, ids=str)
def test_scan_gradients_in_fp32_equal_the_reference(case: ScanCase, threads: int) -> None:
    inputs = scan_inputs(case)
    torch.manual_seed(1)
    wide, narrow = tensors(inputs, grad=True), tensors(inputs, torch.float32, grad=True)
    y, h_last = scan_of("reference", case)(*wide)
    y_grad, h_grad = torch.randn_like(y), torch.randn_like(h_last)
    expected = torch.autograd.grad((y, h_last), wide, (y_grad, h_grad))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        outputs = scan_of("default", case)(*narrow)
        actual = torch.autograd.grad(outputs, narrow, (y_grad.float(), h_grad.float()))
    finally:
        torch.set_num_threads(before)
    for name, a, e in zip(inputs, actual, expected, strict=True):
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

    for case in (
        ScanCase(1, 6, 4, 3),
        ScanCase(1, 6, 4, 3, groups=2, gate=False),
        ScanCase(2, 6, 4, 3, groups=2, channel_major=True),
    ):
        scan = tensors(scan_inputs(case), torch.float32, grad=True)
        scan += [None] * (9 - len(scan))
        torch.library.opcheck(native_cpu.selective_scan, (*scan, True, case.channel_major))
    conv = tensors(conv_inputs(ConvCase(1, 6, 4, 4)), torch.float32, grad=True)
    torch.library.opcheck(native_cpu.causal_conv1d, (*conv, True))


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
    inputs = [make(B, L, D), make(B, L, D), (-torch.rand(D, N)).requires_grad_(), make(B, L, 1, N),
              make(B, L, 1, N), make(D), make(D), make(B, D, N), make(B, L, D)]
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
    with pytest.raises(ValueError, match=r"B is \(1, 4, 1, 3\), should be \(1, 5, 1, 3\)"):
        selective_scan(*inputs)
    for rows in (torch.zeros(1, 5, 3), torch.zeros(1, 5, 3, 3), torch.zeros(1, 5, 0, 3)):
        inputs[3] = rows
        with pytest.raises(ValueError, match=r"should be \(1, 5, G, 3\) with a G that divides"):
            selective_scan(*inputs)
    inputs = tensors(scan_inputs(ScanCase(1, 5, 4, 3, channel_major=True)))
    with pytest.raises(ValueError, match=r"B is \(1, 1, 3, 5\), .* \(1, 4, G, 3\) with a G that"):
        selective_scan(*inputs)
    inputs[4] = inputs[4][..., :4]
    with pytest.raises(ValueError, match=r"C is \(1, 1, 3, 4\), should be \(1, 1, 3, 5\)"):
        selective_scan(*inputs, channel_major=True)
    inputs[3] = torch.zeros(1, 3, 3, 5)
    with pytest.raises(ValueError, match=r"should be \(1, G, 3, 5\) with a G that divides the 4"):
        selective_scan(*inputs, channel_major=True)
    inputs = tensors(conv_inputs(ConvCase(1, 5, 4, 3)))
    inputs[3] = inputs[3][:, :1]
    with pytest.raises(ValueError, match=r"causal_conv1d: tail is \(1, 1, 4\)"):
        causal_conv1d(*inputs)
