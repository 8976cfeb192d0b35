"""The native CPU kernels as `torch.library` operators with fake kernels and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvmsr import native


def _pointers(names: str, tensors: tuple[Tensor, ...]) -> dict[str, int]:
    return {name: t.data_ptr() for name, t in zip(names.split(), tensors, strict=True)}


def _dtype(tensor: Tensor) -> int:
    return native.DTYPES[str(tensor.dtype).removeprefix("torch.")]


def _dense(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in tensors)


@torch.library.custom_op("dvmsr::selective_scan", mutates_args=(), device_types="cpu")
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    h0: Tensor,
) -> tuple[Tensor, Tensor]:
    inputs = _dense(u, delta, A, B, C, D, z, delta_bias, h0)
    y, h_last = torch.empty_like(inputs[0]), torch.empty_like(inputs[-1])
    native.call(
        "selective_scan_forward",
        native.ScanInputs(
            _dtype(u), *u.shape, A.shape[1], **_pointers(native.SCAN_ARGUMENTS, inputs)
        ),
        native.ScanOutputs(y.data_ptr(), h_last.data_ptr()),
        threads=torch.get_num_threads(),
    )
    return y, h_last


@torch.library.custom_op("dvmsr::selective_scan_backward", mutates_args=(), device_types="cpu")
def selective_scan_backward(
    inputs: list[Tensor], y_grad: Tensor, h_last_grad: Tensor
) -> list[Tensor]:
    dense = _dense(*inputs)
    y_grad, h_last_grad = _dense(y_grad, h_last_grad)
    gradients = tuple(torch.empty_like(t) for t in dense)
    u, A = dense[0], dense[2]
    native.call(
        "selective_scan_backward",
        native.ScanInputs(
            _dtype(u), *u.shape, A.shape[1], **_pointers(native.SCAN_ARGUMENTS, dense)
        ),
        y_grad.data_ptr(),
        h_last_grad.data_ptr(),
        native.ScanGradients(**_pointers(native.SCAN_ARGUMENTS, gradients)),
        threads=torch.get_num_threads(),
    )
    return list(gradients)


@torch.library.custom_op("dvmsr::causal_conv1d", mutates_args=(), device_types="cpu")
def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    inputs = _dense(x, weight, bias, tail)
    y, new_tail = torch.empty_like(inputs[0]), torch.empty_like(inputs[3])
    native.call(
        "causal_conv1d_forward",
        native.ConvInputs(
            _dtype(x), *x.shape, weight.shape[1], **_pointers(native.CONV_ARGUMENTS, inputs)
        ),
        native.ConvOutputs(y.data_ptr(), new_tail.data_ptr()),
        threads=torch.get_num_threads(),
    )
    return y, new_tail


@torch.library.custom_op("dvmsr::causal_conv1d_backward", mutates_args=(), device_types="cpu")
def causal_conv1d_backward(
    inputs: list[Tensor], y_grad: Tensor, new_tail_grad: Tensor
) -> list[Tensor]:
    dense = _dense(*inputs)
    y_grad, new_tail_grad = _dense(y_grad, new_tail_grad)
    gradients = tuple(torch.empty_like(t) for t in dense)
    x, weight = dense[:2]
    native.call(
        "causal_conv1d_backward",
        native.ConvInputs(
            _dtype(x), *x.shape, weight.shape[1], **_pointers(native.CONV_ARGUMENTS, dense)
        ),
        y_grad.data_ptr(),
        new_tail_grad.data_ptr(),
        native.ConvGradients(**_pointers(native.CONV_ARGUMENTS, gradients)),
        threads=torch.get_num_threads(),
    )
    return list(gradients)


@selective_scan.register_fake
def _(u: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(u, memory_format=torch.contiguous_format),
        torch.empty_like(others[-1], memory_format=torch.contiguous_format),
    )


@causal_conv1d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        torch.empty_like(tail, memory_format=torch.contiguous_format),
    )


def _fake_gradients(inputs: list[Tensor], *_: Tensor) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in inputs]


selective_scan_backward.register_fake(_fake_gradients)
causal_conv1d_backward.register_fake(_fake_gradients)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _scan_gradients(ctx: Any, y_grad: Tensor, h_last_grad: Tensor) -> tuple[Tensor, ...]:
    return tuple(selective_scan_backward(list(ctx.saved_tensors), y_grad, h_last_grad))


def _conv_gradients(ctx: Any, y_grad: Tensor, new_tail_grad: Tensor) -> tuple[Tensor, ...]:
    return tuple(causal_conv1d_backward(list(ctx.saved_tensors), y_grad, new_tail_grad))


selective_scan.register_autograd(_scan_gradients, setup_context=_keep_inputs)
causal_conv1d.register_autograd(_conv_gradients, setup_context=_keep_inputs)
