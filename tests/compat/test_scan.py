"""selective_scan_fn and selective_state_update: values and gradients against the FP64 sequential
scan, every form of the call, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from channel_major import as_tensors, channel_major, true_gradients, zero_start
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import SCAN_CASES, ScanCase, error, scan_inputs, scan_truth

from dvmsr import ops
from dvmsr.compat import NotSupportedError
from dvmsr.compat.scan import selective_scan_fn, selective_state_update

EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}
HALF = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
GRADIENT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


def call(inputs: dict[str, torch.Tensor], case: ScanCase) -> tuple[torch.Tensor, torch.Tensor]:
    outputs = selective_scan_fn(**inputs, delta_softplus=case.softplus, return_last_state=True)
    assert isinstance(outputs, tuple)
    return outputs


@pytest.mark.parametrize("dtype", [*EXACT, *HALF], ids=str)
@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
def test_values(case: ScanCase, dtype: torch.dtype) -> None:
    inputs = zero_start(case)
    given = as_tensors(channel_major(inputs, flat=case.groups == 1), dtype)
    if dtype in HALF:
        rounded = {name: value.double().numpy() for name, value in given.items()}
        for name in ("A", "D", "delta_bias"):
            given[name] = torch.tensor(inputs[name], dtype=torch.float32)
            rounded[name] = inputs[name]
        inputs = {name: _token_major(value, name) for name, value in rounded.items()}
        inputs["h0"] = zero_start(case)["h0"]
    y, h = call(given, case)
    assert y.dtype == dtype
    assert y.is_contiguous()
    truth, h_truth = scan_truth(inputs, case.softplus)
    assert error(y.mT.double().numpy(), truth) <= {**EXACT, **HALF}[dtype]
    assert error(h.double().numpy(), h_truth) <= EXACT.get(dtype, 1e-5)  # FP32 for halves, too


def _token_major(value: np.ndarray, name: str) -> np.ndarray:
    if name in ("u", "delta", "z"):
        return value.swapaxes(1, 2)
    if name in ("B", "C"):
        return (value[:, None] if value.ndim == 3 else value).transpose(0, 3, 1, 2)
    return value


GRADIENTS = [
    ScanCase(2, 7, 6, 3, groups=2),
    ScanCase(1, 40, 8, 16, groups=4, gate=False),
    ScanCase(2, 33, 12, 1, groups=4, gate=False),
    ScanCase(2, 20, 5, 8),
    ScanCase(1, 30, 6, 4, softplus=False),
    ScanCase(1, 700, 16, 16, "slow decay", groups=2),
]


@pytest.mark.parametrize("dtype", GRADIENT_TOLERANCE, ids=str)
@pytest.mark.parametrize("case", GRADIENTS, ids=str)
def test_gradients(case: ScanCase, dtype: torch.dtype) -> None:
    inputs = zero_start(case)
    given = as_tensors(channel_major(inputs, flat=case.groups == 1), dtype, grad=True)
    y, h = call(given, case)
    rng = np.random.default_rng(1)
    y_grad, h_grad = rng.standard_normal(y.mT.shape), rng.standard_normal(h.shape)
    ((y * torch.tensor(y_grad).mT).sum() + (h * torch.tensor(h_grad)).sum()).backward()
    for name, truth in true_gradients(inputs, case.softplus, y_grad, h_grad).items():
        found = _token_major(given[name].grad.double().numpy(), name)
        assert error(found, truth) <= GRADIENT_TOLERANCE[dtype], name


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_takes_any_strides_shapes_and_absences(data: st.DataObject) -> None:
    """D, z and delta_bias may be absent; tensors may be slices, permuted, or expanded."""
    draw = data.draw
    groups = draw(st.integers(1, 3))
    case = ScanCase(
        draw(st.integers(1, 3)),
        draw(st.integers(0, 40)),
        groups * draw(st.integers(1, 9)),
        draw(st.sampled_from([1, 2, 8, 16])),
        groups=groups,
        gate=draw(st.booleans()),
        softplus=draw(st.booleans()),
    )
    inputs = zero_start(case, draw(st.integers(0, 5)))
    given = as_tensors(channel_major(inputs, flat=groups == 1 and draw(st.booleans())))
    for name in ("D", "delta_bias"):
        if draw(st.booleans()):
            del given[name]
            inputs[name] = np.zeros_like(inputs[name])
    for name, tensor in given.items():
        given[name] = draw(st.sampled_from([torch.clone, _permuted, _sliced]))(tensor)
    y, h = call(given, case)
    truth, h_truth = scan_truth(inputs, case.softplus)
    assert error(y.mT.numpy(), truth) <= 1e-10
    assert error(h.numpy(), h_truth) <= 1e-10


def _permuted(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, the last dimension not the innermost."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def _sliced(tensor: torch.Tensor) -> torch.Tensor:
    wide = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), float("nan"))
    part = wide[..., 1::2]
    return part.copy_(tensor)


@pytest.mark.parametrize("state", [False, None, True], ids=str)
def test_last_state_only_when_asked_for(state: bool | None) -> None:
    given = as_tensors(channel_major(zero_start(ScanCase(1, 5, 4, 2))))
    result = selective_scan_fn(**given, delta_softplus=True, return_last_state=state)
    assert isinstance(result, tuple) == bool(state)


def test_softplus_is_off_by_default() -> None:
    case = ScanCase(1, 9, 4, 2, softplus=False)
    given = as_tensors(channel_major(zero_start(case)))
    torch.testing.assert_close(selective_scan_fn(**given), call(given, case)[0])


@pytest.mark.parametrize("way", ["native", "chunked"])
def test_autocast_changes_nothing(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As mamba-ssm's function, it has no autocast rule of its own: types stay as they are."""
    if way == "chunked":
        monkeypatch.setattr(ops, "_uses_native", lambda: False)
    case = ScanCase(1, 200, 12, 8, groups=2)
    given = as_tensors(channel_major(zero_start(case)), torch.float32, grad=True)
    plain = call(given, case)
    expected = torch.autograd.grad(plain[0].sum(), list(given.values()))
    with torch.autocast("cpu", torch.bfloat16):
        y, h = call(given, case)
        found = torch.autograd.grad(y.sum(), list(given.values()))
    for one, other in zip((y, h, *found), (*plain, *expected), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiles_in_one_graph(dynamic: bool) -> None:
    case = ScanCase(2, 9, 8, 4, groups=2)
    compiled = torch.compile(
        lambda given: selective_scan_fn(**given, delta_softplus=True, return_last_state=True),
        backend="aot_eager",
        fullgraph=True,
        dynamic=dynamic,
    )
    for length in (9, 14):
        inputs = zero_start(ScanCase(2, length, 8, 4, groups=2))
        given = as_tensors(channel_major(inputs), torch.float32, grad=True)
        outputs = compiled(given), call(given, case)
        gradients = [
            torch.autograd.grad(y.square().sum(), list(given.values())) for y, _ in outputs
        ]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_is_one_node_of_an_exported_program() -> None:
    class Network(torch.nn.Module):
        def forward(self, u: Any, delta: Any, A: Any, B: Any, C: Any) -> Any:
            return selective_scan_fn(u, delta, A, B, C, delta_softplus=True)

    def inputs(batch: int, length: int) -> tuple[torch.Tensor, ...]:
        case = ScanCase(batch, length, 8, 4, groups=2)
        given = as_tensors(channel_major(zero_start(case)), torch.float32)
        return tuple(given[name] for name in ("u", "delta", "A", "B", "C"))

    batch, length = torch.export.Dim("batch", max=8), torch.export.Dim("length", max=4096)
    sequence, rows = {0: batch, 2: length}, {0: batch, 3: length}
    program = torch.export.export(
        Network(), inputs(2, 12), dynamic_shapes=(sequence, sequence, None, rows, rows)
    )
    names = [str(node.target) for node in program.graph.nodes]
    assert names.count("dvmsr.selective_scan.default") == 1
    other = inputs(3, 31)
    torch.testing.assert_close(program.module()(*other), Network()(*other))


def small() -> dict[str, torch.Tensor]:
    return as_tensors(channel_major(zero_start(ScanCase(1, 5, 4, 2))))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"A": torch.randn(4, 2, dtype=torch.complex64)}, "a complex A is not supported"),
        ({"B": torch.randn(4, 2)}, r"B of shape \(4, 2\) is not supported"),
        ({"C": torch.randn(4, 2)}, r"C of shape \(4, 2\) is not supported"),
    ],
    ids=["complex_A", "constant_B", "constant_C"],
)
def test_refuses_by_name(changes: dict[str, torch.Tensor], sentence: str) -> None:
    with pytest.raises(NotSupportedError, match=sentence):
        selective_scan_fn(**{**small(), **changes})


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="delta is"):
        selective_scan_fn(**{**small(), "delta": torch.randn(1, 4, 6)})


@pytest.mark.parametrize("heads", [None, 2], ids=["plain", "heads"])
def test_single_steps_are_the_scan(heads: int | None) -> None:
    """Token by token, the state updated in place."""
    case = ScanCase(2, 6, 8, 3, groups=heads or 1)
    inputs = scan_inputs(case)
    truth, h_truth = scan_truth(inputs)
    given = as_tensors(inputs)

    def shaped(tensor: torch.Tensor) -> torch.Tensor:
        """D of (..., D, ...) as heads times D."""
        where = 0 if tensor.shape[0] == case.channels else 1
        return tensor if heads is None else tensor.unflatten(where, (heads, -1))

    state = shaped(given["h0"]).clone()
    for t in range(case.length):
        rows = (given[name][:, t] if heads else given[name][:, t, 0] for name in ("B", "C"))
        y = selective_state_update(
            state,
            shaped(given["u"][:, t]),
            shaped(given["delta"][:, t]),
            shaped(given["A"]),
            *rows,
            shaped(given["D"]),
            shaped(given["z"][:, t]),
            shaped(given["delta_bias"]),
            dt_softplus=True,
        )
        assert error(y.flatten(1).numpy(), truth[:, t]) <= 1e-10
    assert error(state.reshape(h_truth.shape).numpy(), h_truth) <= 1e-10


def test_step_refuses_indices_by_name() -> None:
    x = torch.zeros(1, 4)
    with pytest.raises(NotSupportedError, match="state_batch_indices"):
        selective_state_update(
            torch.zeros(1, 4, 2),
            x,
            x,
            torch.zeros(4, 2),
            torch.zeros(1, 2),
            torch.zeros(1, 2),
            state_batch_indices=torch.zeros(1),
        )
