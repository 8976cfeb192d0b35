"""The native CPU kernels as `torch.library` operators with fake kernels and gradients.

Both take and give token-major tensors, the scan with `channel_major` also tensors as mamba-ssm is
called with. A token-major input whose tokens lie side by side, (B, D, L) in memory, is copied; what
comes of it then lies as it does.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from ctypes import Structure
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dvmsr.kernels import cpu


@dataclass(frozen=True)
class _Kernels:
    """Both operators take a sequence first, and return one like it and a state."""

    name: str
    inputs: type[Structure]
    outputs: type[Structure]
    gradients: type[Structure]
    state: int
    """Which input the returned state is like."""
    sizes: Callable[..., tuple[int, ...]]
    """B, L, D and the others of the structure, from the inputs."""

    def forward(self, inputs: Sequence[Tensor | None], *form: bool) -> tuple[Tensor, Tensor]:
        dense = _dense(inputs)
        outputs = torch.empty_like(dense[0]), torch.empty_like(dense[self.state])
        arguments = self._describe(dense, form), self.outputs(*addresses(outputs))
        cpu.call(f"{self.name}_forward", *arguments, threads=torch.get_num_threads())
        assert inputs[0] is not None
        return _laid_out(outputs[0], inputs[0]), outputs[1]

    def backward(
        self, inputs: Sequence[Tensor], output_gradients: Sequence[Tensor], *form: bool
    ) -> list[Tensor]:
        dense, output_gradients = _dense(inputs), _dense(output_gradients)
        gradients = [torch.empty_like(tensor) for tensor in dense]
        cpu.call(
            f"{self.name}_backward",
            self._describe(dense, form),
            *addresses(output_gradients),
            self.gradients(*addresses(gradients)),
            threads=torch.get_num_threads(),
        )
        # The copies of the inputs are no longer needed: memory that the system need not find anew.
        spare = [
            None if copy.data_ptr() == given.data_ptr() else copy
            for copy, given in zip(dense, inputs, strict=True)
        ]
        return [_laid_out(*those) for those in zip(gradients, inputs, spare, strict=True)]

    def _describe(self, dense: tuple[Tensor, ...], form: tuple[bool, ...]) -> Structure:
        dtype = cpu.DTYPES[str(dense[0].dtype).removeprefix("torch.")]
        return self.inputs(dtype, *form, *self.sizes(form, *dense), *addresses(dense))


def _dense(tensors: Iterable[Tensor | None]) -> tuple[Tensor, ...]:
    return tuple(_token_major(tensor) for tensor in tensors if tensor is not None)


def channel_major(tensor: Tensor) -> bool:
    """Whether the tokens of (B, L, ...) lie side by side."""
    return tensor.dim() >= 3 and tensor.stride(1) == 1


def _token_major(tensor: Tensor) -> Tensor:
    if not channel_major(tensor) or tensor.is_contiguous():
        return tensor.contiguous()
    dense = torch.empty(tensor.shape, dtype=tensor.dtype)
    return _transpose(tensor.movedim(1, -1).contiguous(), dense, columns=tensor.shape[1])


def _laid_out(tensor: Tensor, like: Tensor, spare: Tensor | None = None) -> Tensor:
    """A token-major tensor, its tokens side by side if those of `like` are; then in the memory of
    `spare`, if there is one, which is as large."""
    if not channel_major(like):
        return tensor
    batch, length, *others = like.shape
    memory = torch.empty_like(tensor) if spare is None else spare
    result = memory.view(batch, *others, length)
    return _transpose(tensor, result, columns=math.prod(others)).movedim(-1, 1)


def _transpose(source: Tensor, to: Tensor, columns: int) -> Tensor:
    """Matrices (B, rows, columns), however their sides are divided, to (B, columns, rows)."""
    if source.numel():
        batch = source.shape[0]
        sizes = batch, source.numel() // batch // columns, columns, source.element_size()
        arguments = *addresses((source, to)), *sizes
        cpu.call("transpose", *arguments, threads=torch.get_num_threads())
    return to


def _empty_like(tensor: Tensor) -> Tensor:
    if tensor.device.type == "cpu" and channel_major(tensor):
        batch, length, *others = tensor.shape
        return tensor.new_empty(batch, *others, length).movedim(-1, 1)
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def addresses(tensors: Iterable[Tensor]) -> list[int]:
    """Where the data of each begins."""
    return [tensor.data_ptr() for tensor in tensors]


def scan_sizes(
    form: tuple[bool, bool], u: Tensor, delta: Tensor, A: Tensor, B: Tensor, *_: Tensor
) -> tuple[int, ...]:
    """B, L, D, G, N; the form is delta_softplus and channel_major."""
    return (*u.mT.shape, *B.shape[1:3]) if form[1] else (*u.shape, *B.shape[2:])


def conv_sizes(form: tuple[bool], x: Tensor, weight: Tensor, *_: Tensor) -> tuple[int, ...]:
    """B, L, D, K; the form is activation."""
    return *x.shape, weight.shape[1]


_SCAN = _Kernels(
    "selective_scan", cpu.ScanInputs, cpu.ScanOutputs, cpu.ScanGradients, 7, scan_sizes
)
_CONV = _Kernels("causal_conv1d", cpu.ConvInputs, cpu.ConvOutputs, cpu.ConvGradients, 3, conv_sizes)


@torch.library.custom_op("dvmsr::selective_scan", mutates_args=(), device_types="cpu")
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    h0: Tensor,
    z: Tensor | None,
    delta_softplus: bool,
    channel_major: bool,
) -> tuple[Tensor, Tensor]:
    inputs = (u, delta, A, B, C, D, delta_bias, h0, z)
    return _SCAN.forward(inputs, delta_softplus, channel_major)


@torch.library.custom_op("dvmsr::selective_scan_backward", mutates_args=(), device_types="cpu")
def selective_scan_backward(
    inputs: list[Tensor],
    y_grad: Tensor,
    h_last_grad: Tensor,
    delta_softplus: bool,
    channel_major: bool,
) -> list[Tensor]:
    """Gradients of the inputs: nine with z, else eight."""
    return _SCAN.backward(inputs, (y_grad, h_last_grad), delta_softplus, channel_major)


@torch.library.custom_op("dvmsr::causal_conv1d", mutates_args=(), device_types="cpu")
def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor, activation: bool
) -> tuple[Tensor, Tensor]:
    return _CONV.forward((x, weight, bias, tail), activation)


@torch.library.custom_op("dvmsr::causal_conv1d_backward", mutates_args=(), device_types="cpu")
def causal_conv1d_backward(
    inputs: list[Tensor], y_grad: Tensor, new_tail_grad: Tensor, activation: bool
) -> list[Tensor]:
    return _CONV.backward(inputs, (y_grad, new_tail_grad), activation)


def _fake_scan(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _empty_like(arguments[0]), arguments[7].new_empty(arguments[7].shape)


def _fake_conv(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _empty_like(arguments[0]), arguments[3].new_empty(arguments[3].shape)


def _fake_gradients(inputs: list[Tensor], *_: Any) -> list[Tensor]:
    return [_empty_like(tensor) for tensor in inputs]


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.form = tuple(value for value in inputs if isinstance(value, bool))
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))


def _scan_gradients(ctx: Any, y_grad: Tensor, h_last_grad: Tensor) -> tuple[Tensor | None, ...]:
    inputs = list(ctx.saved_tensors)
    gradients = selective_scan_backward(inputs, y_grad, h_last_grad, *ctx.form)
    return *gradients, *[None] * (11 - len(inputs))


def _conv_gradients(ctx: Any, y_grad: Tensor, new_tail_grad: Tensor) -> tuple[Tensor | None, ...]:
    inputs = list(ctx.saved_tensors)
    return *causal_conv1d_backward(inputs, y_grad, new_tail_grad, *ctx.form), None


selective_scan.register_fake(_fake_scan)
causal_conv1d.register_fake(_fake_conv)
selective_scan_backward.register_fake(_fake_gradients)
causal_conv1d_backward.register_fake(_fake_gradients)
selective_scan.register_autograd(_scan_gradients, setup_context=_keep_inputs)
causal_conv1d.register_autograd(_conv_gradients, setup_context=_keep_inputs)
