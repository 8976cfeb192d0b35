"""The CUDA kernels behind the operators of `native_cpu`, with their gradients, on PyTorch's stream.

Activations may be FP32, FP16 or BF16 and parts of wider tensors; parameters, state and arithmetic
are FP32.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import Structure, byref

import torch
from torch import Tensor

from dvmsr.kernels import cuda
from dvmsr.kernels.cpu import SCAN_ARGUMENTS
from dvmsr.ops import native_cpu
from dvmsr.ops.layout import channels_first, tokens_first
from dvmsr.ops.native_cpu import addresses, conv_sizes, scan_sizes

_PER_TOKEN = frozenset({"u", "delta", "B", "C", "z"})
"""What may be a part of a wider tensor."""


def register() -> None:
    """Make them the kernels of PyTorch's operators for tensors on a GPU.

    Raises:
        MissingComponentError: if the library cannot be compiled or loaded.
    """
    cuda.load().device()
    native_cpu.selective_scan.register_kernel("cuda")(scan)
    native_cpu.selective_scan_backward.register_kernel("cuda")(scan_backward)
    native_cpu.causal_conv1d.register_kernel("cuda")(conv)
    native_cpu.causal_conv1d_backward.register_kernel("cuda")(conv_backward)


def scan(
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
    """As `dvmsr.ops.selective_scan`; A, D, delta_bias and h0 FP32, all else of one type.

    The kernels are token-major: channel-major tensors are transposed before and after them.
    """
    library = cuda.load()
    inputs = [u, delta, A, B, C, D, delta_bias, h0, *([] if z is None else [z])]
    if channel_major:
        inputs = tokens_first(inputs)
        u = inputs[0]
    params, _kept = _scan_params(inputs, delta_softplus)
    y, h_last = _like(u), _like(h0)
    params.y, params.h_last, params.y_stride = y.data_ptr(), h_last.data_ptr(), u.shape[2]
    with _stream(u) as stream:
        plan = library.scan_plan(params, _multiprocessors(u.device))
        workspace = _bytes(library.workspace("scan", params, plan), u)
        library.call("selective_scan", byref(params), plan, workspace.data_ptr(), stream)
    return _dense(y.mT) if channel_major else y, h_last


def scan_backward(
    inputs: list[Tensor],
    y_grad: Tensor,
    h_last_grad: Tensor,
    delta_softplus: bool,
    channel_major: bool,
) -> list[Tensor]:
    """Gradients of all inputs, in their types; they are in the operator's order, z last or left
    off."""
    if channel_major:
        gradients = scan_backward(
            tokens_first(inputs), y_grad.mT, h_last_grad, delta_softplus, False
        )
        return [_dense(t) for t in channels_first(gradients)]
    params, inputs = _scan_params(inputs, delta_softplus)
    kinds = cuda.ScanOutputGradients, cuda.ScanGradients
    return _backward("selective_scan", "scan", params, inputs, (y_grad, h_last_grad), kinds)


def conv(
    x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor, activation: bool
) -> tuple[Tensor, Tensor]:
    """As `dvmsr.ops.causal_conv1d`; weight and bias FP32, x and tail of one type."""
    params, _kept = _conv_params([x, weight, bias, tail], activation)
    y, new_tail = _like(x), _like(tail)
    params.y, params.new_tail, params.y_stride = y.data_ptr(), new_tail.data_ptr(), x.shape[2]
    with _stream(x) as stream:
        cuda.load().call("causal_conv1d", byref(params), stream)
    return y, new_tail


def conv_backward(
    inputs: list[Tensor], y_grad: Tensor, new_tail_grad: Tensor, activation: bool
) -> list[Tensor]:
    """Gradients of all inputs, in their types."""
    params, inputs = _conv_params(inputs, activation)
    kinds = cuda.ConvOutputGradients, cuda.ConvGradients
    return _backward("causal_conv1d", "conv", params, inputs, (y_grad, new_tail_grad), kinds)


def _backward(
    operator: str,
    short: str,
    params: Structure,
    inputs: list[Tensor],
    output_gradients: tuple[Tensor, Tensor],
    kinds: tuple[type[Structure], type[Structure]],
) -> list[Tensor]:
    """Gradients of the inputs; `kinds` hold the addresses of those of outputs and inputs."""
    library = cuda.load()
    outputs = [t.contiguous() for t in output_gradients]
    gradients = [_like(t) for t in inputs]
    with _stream(outputs[0]) as stream:
        workspace = _bytes(library.workspace(f"{short}_backward", params), outputs[0])
        library.call(
            f"{operator}_backward",
            byref(params),
            byref(kinds[0](*addresses(outputs))),
            byref(kinds[1](*addresses(gradients))),
            workspace.data_ptr(),
            stream,
        )
    return gradients


def _scan_params(inputs: list[Tensor], delta_softplus: bool) -> tuple[Structure, list[Tensor]]:
    """The parameters, and the tensors that they point to, which must outlive the call."""
    tensors = {
        name: _tokens(tensor) if name in _PER_TOKEN else tensor.contiguous()
        for name, tensor in zip(SCAN_ARGUMENTS.split(), inputs, strict=False)  # z may be missing
    }
    kept = list(tensors.values())
    params = cuda.ScanParams(
        _dtype(kept[0]),
        delta_softplus,
        *scan_sizes((delta_softplus, False), *kept),
        *addresses(kept),
    )
    for name in tensors.keys() & _PER_TOKEN:
        setattr(params, f"{name}_stride", tensors[name].stride(1))
    return params, kept


def _conv_params(inputs: list[Tensor], activation: bool) -> tuple[Structure, list[Tensor]]:
    x, *others = inputs
    kept = [_tokens(x), *(tensor.contiguous() for tensor in others)]
    params = cuda.ConvParams(
        _dtype(x), activation, *conv_sizes((activation,), *kept), *addresses(kept)
    )
    params.x_stride = params.y_stride = kept[0].stride(1)
    return params, kept


def _tokens(tensor: Tensor) -> Tensor:
    """(B, L, ...) as the kernels read it: a dense row per token, and tokens at one distance through
    all batch elements."""
    return tensor if tensor.numel() and _has_rows(tensor) else _dense(tensor)


def _has_rows(tensor: Tensor) -> bool:
    row, step = tensor[0, 0], tensor.stride(1)
    one_distance = tensor.shape[0] == 1 or tensor.stride(0) == tensor.shape[1] * step
    return one_distance and row.is_contiguous() and row.numel() <= step < 2**31


def _dense(tensor: Tensor) -> Tensor:
    """A dense copy, its strides as the shape says even where a side has one element or none."""
    dense = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return dense.copy_(tensor)


def _like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _bytes(count: int, like: Tensor) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=like.device)


def _dtype(tensor: Tensor) -> int:
    return cuda.DTYPES[str(tensor.dtype).removeprefix("torch.")]


@contextmanager
def _stream(tensor: Tensor) -> Iterator[int]:
    """PyTorch's current stream of the tensor's GPU, which becomes the current one.

    Tensors in host memory are for a library that computes there.
    """
    if not tensor.is_cuda:
        yield 0
        return
    with torch.cuda.device(tensor.device):
        yield torch.cuda.current_stream().cuda_stream


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return cuda.load().device().multiprocessors
