"""`fwd` and `bwd` of the compiled modules: values and gradients against the FP64 reference, in the
order in which networks' own autograd Functions take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from channel_major import SCAN_ORDER, as_tensors, channel_major, true_gradients, zero_start
from vectors import ScanCase, error, scan_truth

from dvmsr.compat import extension

CASES = [
    ScanCase(2, 9, 6, 3, groups=2, gate=False),
    ScanCase(1, 40, 8, 1, groups=4, gate=False),
    ScanCase(1, 12, 8, 4, gate=False, softplus=False),
]
VMAMBA = {
    "core": extension.SelectiveScanCudaCore,
    "oflex": extension.SelectiveScanCudaOflex,
    "ndstate": extension.SelectiveScanCudaNdstate,
}


def in_order(given: dict[str, Any], order: tuple[str, ...]) -> list[Any]:
    return [given.get(name) for name in order]


def check(
    inputs: dict[str, np.ndarray], softplus: bool, y: Any, x: Any, found: dict[str, Any]
) -> None:
    """y, the last state in x, and gradients, all channel-major, from y_grad = sin(y)."""
    truth, h = scan_truth(inputs, softplus)
    assert error(y.mT.numpy(), truth) <= 1e-10
    assert error(x[:, :, -1, 1::2].numpy(), h) <= 1e-10
    gradients = channel_major(
        {**true_gradients(inputs, softplus, np.sin(truth), np.zeros_like(h)), "h0": h}
    )
    for name, gradient in gradients.items():
        assert error(found[name].reshape(gradient.shape).numpy(), gradient) <= 1e-9, name


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in CASES for name in VMAMBA if name != "ndstate" or case.state == 1],
    ids=str,
)
def test_vmambas(case: ScanCase, name: str) -> None:
    inputs = zero_start(case)
    given = as_tensors(channel_major(inputs))
    if name == "ndstate":
        given.update(A=given["A"][:, 0], B=given["B"][:, :, 0], C=given["C"][:, :, 0])
    order = ("u", "delta", "A", "B", "C", "D", "delta_bias")
    tensors = in_order(given, order)
    module = VMAMBA[name]
    last = [False] if name == "oflex" else []
    y, x = module.fwd(*tensors, case.softplus, 1, *last)
    gradients = module.bwd(*tensors, y.sin(), x, case.softplus, 1)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        assert gradient.shape == tensor.shape
    check(inputs, case.softplus, y, x, dict(zip(order, gradients, strict=True)))


@pytest.mark.parametrize("gate", [True, False], ids=["gate", "no_gate"])
def test_mamba_ssms(gate: bool) -> None:
    case = ScanCase(2, 9, 6, 3, groups=2, gate=gate)
    inputs = zero_start(case)
    given = as_tensors(channel_major(inputs))
    tensors = in_order(given, SCAN_ORDER)
    module = extension.SelectiveScanCuda
    out, x, *rest = module.fwd(*tensors, True)
    y = rest[0] if gate else out
    dz = torch.empty_like(given["z"]) if gate else None
    gradients = module.bwd(*tensors, y.sin(), x, out, dz, True, gate)
    order = ["u", "delta", "A", "B", "C", "D", "delta_bias", *["z", "y"] * gate]
    found = dict(zip(order, gradients, strict=True))
    check(inputs, True, y, x, found)
    if gate:
        assert found["z"] is dz
        torch.testing.assert_close(found["y"], y)


def test_absent_parameters_have_no_gradient() -> None:
    given = as_tensors(channel_major(zero_start(CASES[0])))
    tensors = [given[name] for name in ("u", "delta", "A", "B", "C")]
    y, x = extension.SelectiveScanCudaCore.fwd(*tensors, None, None, True, 1)
    gradients = extension.SelectiveScanCudaCore.bwd(*tensors, None, None, y, x, True, 1)
    assert gradients[5:] == [None, None]


def test_one_delta_for_several_channels() -> None:
    """As VMamba's kernels take it."""
    case = ScanCase(1, 9, 6, 3, groups=1, gate=False)
    given = as_tensors(channel_major(zero_start(case)))
    few = {**given, "delta": given["delta"][:, ::3], "delta_bias": given["delta_bias"][::3]}
    many = {
        **given,
        "delta": few["delta"].repeat_interleave(3, 1),
        "delta_bias": few["delta_bias"].repeat_interleave(3),
    }
    order = ("u", "delta", "A", "B", "C", "D", "delta_bias")
    module = extension.SelectiveScanCudaCore
    (y, x), (y_many, _) = (module.fwd(*in_order(g, order), True, 1) for g in (few, many))
    torch.testing.assert_close(y, y_many)
    one, other = (module.bwd(*in_order(g, order), y.sin(), x, True, 1) for g in (few, many))
    torch.testing.assert_close(one[1], other[1].unflatten(1, (2, 3)).sum(2))
    torch.testing.assert_close(one[6], other[6].unflatten(0, (2, 3)).sum(1))


@pytest.mark.parametrize("wide", [True, False], ids=["float", "half"])
def test_oflex_chooses_the_type_of_y(wide: bool) -> None:
    given = as_tensors(channel_major(zero_start(CASES[0])), torch.float16)
    for name in ("A", "D", "delta_bias"):
        given[name] = given[name].float()
    tensors = in_order(given, ("u", "delta", "A", "B", "C", "D", "delta_bias"))
    y, _ = extension.SelectiveScanCudaOflex.fwd(*tensors, True, 1, wide)
    assert y.dtype == (torch.float32 if wide else torch.float16)
    gradients = extension.SelectiveScanCudaOflex.bwd(*tensors, y, None, True, 1)
    assert [g.dtype for g in gradients] == [t.dtype for t in tensors]
