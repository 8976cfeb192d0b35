"""causal_conv1d_fn and causal_conv1d_update against the FP64 convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_major import as_tensors
from vectors import CONV_CASES, TOLERANCE, ConvCase, conv_inputs, conv_truth, error

from dvmsr.compat import NotSupportedError
from dvmsr.compat.conv import causal_conv1d_fn, causal_conv1d_update
from dvmsr.ops.reference import causal_conv1d_reference


def activation(case: ConvCase) -> str | None:
    return "silu" if case.activation else None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_values(case: ConvCase, dtype: torch.dtype) -> None:
    """With initial and final states."""
    inputs = as_tensors(conv_inputs(case), dtype)
    truth, tail = conv_truth({k: v.double().numpy() for k, v in inputs.items()}, case.activation)
    outputs = causal_conv1d_fn(
        inputs["x"].mT.contiguous(),
        inputs["weight"],
        inputs["bias"],
        initial_states=inputs["tail"].mT,
        return_final_states=True,
        activation=activation(case),
    )
    assert isinstance(outputs, tuple)
    y, final = outputs
    assert y.dtype == dtype
    assert y.is_contiguous()
    tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]
    assert error(y.mT.double().numpy(), truth) <= tolerance
    assert error(final.mT.double().numpy(), tail) == 0


@pytest.mark.parametrize("name", ["silu", "swish"])
def test_starts_with_zeros_and_without_a_bias(name: str) -> None:
    inputs = conv_inputs(ConvCase(2, 9, 5, 4))
    inputs = {**inputs, "bias": np.zeros(5), "tail": np.zeros_like(inputs["tail"])}
    x = torch.tensor(inputs["x"]).mT
    y = causal_conv1d_fn(x, torch.tensor(inputs["weight"]), activation=name)
    assert isinstance(y, torch.Tensor)
    assert error(y.mT.numpy(), conv_truth(inputs)[0]) <= 1e-12


def test_writes_final_states_where_asked() -> None:
    inputs = as_tensors(conv_inputs(ConvCase(2, 9, 5, 4)))
    to = torch.empty(2, 5, 3, dtype=torch.float64)
    _, final = causal_conv1d_fn(
        inputs["x"].mT, inputs["weight"], return_final_states=True, final_states_out=to
    )
    assert final is to
    torch.testing.assert_close(to, inputs["x"].mT[..., -3:])


@pytest.mark.parametrize("case", [ConvCase(2, 9, 5, 4), ConvCase(1, 2, 8, 3, False)], ids=str)
def test_gradients(case: ConvCase) -> None:
    truth, found = (as_tensors(conv_inputs(case), grad=True) for _ in range(2))
    y, tail = causal_conv1d_reference(**truth, activation=case.activation)
    (y.sin().sum() + tail.cos().sum()).backward()
    outputs = causal_conv1d_fn(
        found["x"].mT,
        found["weight"],
        found["bias"],
        initial_states=found["tail"].mT,
        return_final_states=True,
        activation=activation(case),
    )
    (outputs[0].sin().sum() + outputs[1].cos().sum()).backward()
    for name, tensor in truth.items():
        torch.testing.assert_close(found[name].grad, tensor.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kept", [3, 4, 6])
@pytest.mark.parametrize("tokens", [None, 1, 3, 7], ids=str)
def test_updates_continue_a_sequence(tokens: int | None, kept: int) -> None:
    """With a state of K-1 tokens or more; x (B, D) or (B, D, L)."""
    case = ConvCase(2, 14, 5, 4)
    inputs = conv_inputs(case)
    truth, _ = conv_truth(inputs)
    given = as_tensors(inputs)
    state = torch.zeros(2, 5, kept, dtype=torch.float64)
    state[..., kept - 3 :] = given["tail"].mT
    x = given["x"].mT
    parts = x.unbind(-1) if tokens is None else x.split(tokens, -1)
    found = [
        causal_conv1d_update(part, state, given["weight"], given["bias"], "silu") for part in parts
    ]
    y = torch.stack(found, -1) if tokens is None else torch.cat(found, -1)
    assert error(y.mT.numpy(), truth) <= 1e-12
    torch.testing.assert_close(state, x[..., -kept:])


def test_refuses_by_name() -> None:
    x, weight, state = torch.zeros(1, 4, 5), torch.zeros(4, 3), torch.zeros(1, 4, 3)
    with pytest.raises(NotSupportedError, match="seq_idx"):
        causal_conv1d_fn(x, weight, seq_idx=torch.zeros(1, 5))
    with pytest.raises(NotSupportedError, match="'relu'"):
        causal_conv1d_fn(x, weight, activation="relu")
    with pytest.raises(NotSupportedError, match="cache_seqlens"):
        causal_conv1d_update(x, state, weight, cache_seqlens=torch.zeros(1))
    with pytest.raises(NotSupportedError, match="conv_state_indices"):
        causal_conv1d_update(x, state, weight, conv_state_indices=torch.zeros(1))
