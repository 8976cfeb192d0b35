"""The native CPU kernels as `torch.library` operators with fake kernels and gradients."""

from collections.abc import Iterable
from ctypes import Structure
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dvmsr.kernels import cpu


@dataclass(frozen=True)
class _Kernels:
    """Both operators take a sequence first and a state last, and return such two."""

    name: str
    inputs: type[Structure]
    outputs: type[Structure]
    gradients: type[Structure]
    sized: int
    """Which input is (D, N) or (D, K)."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        dense = _dense(inputs)
        outputs = torch.empty_like(dense[0]), torch.empty_like(dense[-1])
        arguments = self._describe(dense), self.outputs(*addresses(outputs))
        cpu.call(f"{self.name}_forward", *arguments, threads=torch.get_num_threads())
        return outputs

    def backward(self, inputs: list[Tensor], *output_gradients: Tensor) -> list[Tensor]:
        dense, output_gradients = _dense(inputs), _dense(output_gradients)
        gradients = [torch.empty_like(tensor) for tensor in dense]
        cpu.call(
            f"{self.name}_backward",
            self._describe(dense),
            *addresses(output_gradients),
            self.gradients(*addresses(gradients)),
            threads=torch.get_num_threads(),
        )
        return gradients

    def _describe(self, dense: tuple[Tensor, ...]) -> Structure:
        sequence = dense[0]
        dtype = cpu.DTYPES[str(sequence.dtype).removeprefix("torch.")]
        sizes = (*sequence.shape, dense[self.sized].shape[1])
        return self.inputs(dtype, *sizes, *addresses(dense))


def _dense(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def addresses(tensors: Iterable[Tensor]) -> list[int]:
    """Where the data of each begins."""
    return [tensor.data_ptr() for tensor in tensors]


_SCAN = _Kernels("selective_scan", cpu.ScanInputs, cpu.ScanOutputs, cpu.ScanGradients, sized=2)
_CONV = _Kernels("causal_conv1d", cpu.ConvInputs, cpu.ConvOutputs, cpu.ConvGradients, sized=1)


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
    return _SCAN.forward(u, delta, A, B, C, D, z, delta_bias, h0)


@torch.library.custom_op("dvmsr::selective_scan_backward", mutates_args=(), device_types="cpu")
def selective_scan_backward(
    inputs: list[Tensor], y_grad: Tensor, h_last_grad: Tensor
) -> list[Tensor]:
    return _SCAN.backward(inputs, y_grad, h_last_grad)


@torch.library.custom_op("dvmsr::causal_conv1d", mutates_args=(), device_types="cpu")
def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    return _CONV.forward(x, weight, bias, tail)


@torch.library.custom_op("dvmsr::causal_conv1d_backward", mutates_args=(), device_types="cpu")
def causal_conv1d_backward(
    inputs: list[Tensor], y_grad: Tensor, new_tail_grad: Tensor
) -> list[Tensor]:
    return _CONV.backward(inputs, y_grad, new_tail_grad)


def _fake_outputs(sequence: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    first, last = _fake_gradients([sequence, others[-1]])
    return first, last


def _fake_gradients(inputs: list[Tensor], *_: Tensor) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in inputs]


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _scan_gradients(ctx: Any, y_grad: Tensor, h_last_grad: Tensor) -> tuple[Tensor, ...]:
    return tuple(selective_scan_backward(list(ctx.saved_tensors), y_grad, h_last_grad))


def _conv_gradients(ctx: Any, y_grad: Tensor, new_tail_grad: Tensor) -> tuple[Tensor, ...]:
    return tuple(causal_conv1d_backward(list(ctx.saved_tensors), y_grad, new_tail_grad))


selective_scan.register_fake(_fake_outputs)
causal_conv1d.register_fake(_fake_outputs)
selective_scan_backward.register_fake(_fake_gradients)
causal_conv1d_backward.register_fake(_fake_gradients)
selective_scan.register_autograd(_scan_gradients, setup_context=_keep_inputs)
causal_conv1d.register_autograd(_conv_gradients, setup_context=_keep_inputs)
