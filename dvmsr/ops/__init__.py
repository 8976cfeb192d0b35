"""The two operators as differentiable PyTorch functions.

Each takes the fastest way that the device offers:

* CPU: the native C++ kernels, or standard PyTorch where dvmsr was built without them (said once);
* CUDA: dvmsr's own kernels in FP32, FP16 and BF16, compiled for the GPU when first needed; where
  they cannot be, which is said once, mamba-ssm and causal-conv1d if installed, else PyTorch;
* other devices: standard PyTorch.

`dvmsr.ops.reference` is the specification.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, bfloat16, float16, float32, float64

from dvmsr.errors import DvmsrError
from dvmsr.kernels import cpu
from dvmsr.ops.chunked import causal_conv1d_shifted, selective_scan_chunked
from dvmsr.ops.layout import channels_first

__all__ = ["causal_conv1d", "selective_scan"]

MAX_CUDA_STATE = 64
"""The largest N of dvmsr's CUDA kernels."""


Found = Callable[[], bool]


def _constant_when_compiled(found: Found) -> Found:
    """torch.compile takes what was found out about this machine for a constant: it cannot trace
    into finding it out. As `torch.compiler.assume_constant_result`, which needs seconds to import
    the compiler."""
    found._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return found


@_constant_when_compiled
def _uses_native() -> bool:
    return _has_native_operators()


@_constant_when_compiled
def _uses_cuda() -> bool:
    return _has_cuda_kernels()


@functools.cache
def _has_native_operators() -> bool:
    if cpu.library_path() is None:
        warnings.warn(
            f"dvmsr was built without its native operators, standard PyTorch takes their place; "
            f"{cpu.REMEDY}",
            stacklevel=4,
        )
        return False
    return True


@functools.cache
def _has_cuda_kernels() -> bool:
    from dvmsr.ops import native_cuda

    try:
        native_cuda.register()
    except DvmsrError as error:
        warnings.warn(
            f"dvmsr's CUDA kernels are missing, mamba-ssm or standard PyTorch takes their place: "
            f"{error}",
            stacklevel=5,
        )
        return False
    return True


def _takes_cuda_kernels(tensor: Tensor) -> bool:
    return tensor.is_cuda and tensor.dtype in (float16, bfloat16, float32) and _uses_cuda()


@functools.cache
def _mamba_scan() -> Any:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    return _unless_stand_in(selective_scan_fn)


@functools.cache
def _causal_conv1d_fn() -> Any:
    try:
        from causal_conv1d import causal_conv1d_fn
    except ImportError:
        return None
    return _unless_stand_in(causal_conv1d_fn)


def _unless_stand_in(function: Any) -> Any:
    """Those of `dvmsr.compat` under these names would only lead back here."""
    return None if function.__module__.startswith("dvmsr.") else function


def _check(operator: str, **tensors: tuple[Tensor | None, tuple[int, ...]]) -> None:
    for name, (tensor, shape) in tensors.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{operator}: {name} is {tuple(tensor.shape)}, should be {shape}")


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    h0: Tensor | None = None,
    z: Tensor | None = None,
    delta_softplus: bool = True,
    channel_major: bool = False,
) -> tuple[Tensor, Tensor]:
    """Selective scan (Mamba, arXiv 2312.00752, Algorithm 2), token-major unless said otherwise.

    delta_t = softplus(delta_t + delta_bias), h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,
    y_t = (C_t h_t + D u_t) silu(z_t), where channel d uses group d // (D / G) of B and C.

    Args:
        u, delta: (B, L, D), FP16, BF16, FP32 or FP64.
        A: (D, N), FP32 (FP64 with FP64 activations), as are D, delta_bias and h0.
        B, C: (B, L, G, N) in the type of u; G divides D.
        D, delta_bias: (D); zero where they are None.
        h0: state before the first token, (B, D, N); zero where it is None.
        z: (B, L, D) in the type of u; there is no gate where it is None.
        delta_softplus: if False, delta + delta_bias is the step itself.
        channel_major: if True, u, delta, z and y are (B, D, L), and B and C (B, G, N, L).

    Returns:
        y (B, L, D) in the type of u, and the state after the last token (B, D, N).

    Raises:
        ValueError: if the shapes do not fit together.
    """
    if not u.is_floating_point():
        raise ValueError(f"selective_scan: u is {u.dtype}, should be floating-point")
    batch, length, channels = u.mT.shape if channel_major else u.shape
    state = A.shape[-1]
    groups = 0 if B.dim() != 4 else B.shape[1 if channel_major else 2]
    if groups == 0 or channels % groups:
        rows = f"G, {state}, {length}" if channel_major else f"{length}, G, {state}"
        raise ValueError(
            f"selective_scan: B is {tuple(B.shape)}, should be "
            f"({batch}, {rows}) with a G that divides the {channels} channels of u"
        )
    tokens, per_token, hidden = (
        tuple(u.shape),
        (batch, groups, state, length) if channel_major else (batch, length, groups, state),
        (batch, channels, state),
    )
    _check(
        "selective_scan",
        delta=(delta, tokens),
        z=(z, tokens),
        A=(A, (channels, state)),
        B=(B, per_token),
        C=(C, per_token),
        D=(D, (channels,)),
        delta_bias=(delta_bias, (channels,)),
        h0=(h0, hidden),
    )
    on_cuda = state <= MAX_CUDA_STATE and _takes_cuda_kernels(u)
    if u.is_cuda and not on_cuda and h0 is None and length and (scan := _mamba_scan()) is not None:
        if not channel_major:
            u, delta, _, B, C = channels_first((u, delta, A, B, C))
            z = None if z is None else z.mT
        u, delta, B, C = (t.contiguous() for t in (u, delta, B, C))
        z = None if z is None else z.contiguous()
        y, h_last = scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, True)
        return y if channel_major else y.mT, h_last
    h0 = A.new_zeros(hidden) if h0 is None else h0
    D, delta_bias = (A.new_zeros(channels) if t is None else t for t in (D, delta_bias))
    if on_cuda:
        from dvmsr.ops import native_cpu

        delta, B, C = (t.to(u.dtype) for t in (delta, B, C))
        z = None if z is None else z.to(u.dtype)
        A, D, delta_bias, h0 = (t.float() for t in (A, D, delta_bias, h0))
        return native_cpu.selective_scan(
            u, delta, A, B, C, D, delta_bias, h0, z, delta_softplus, channel_major
        )
    if u.device.type in ("cpu", "meta") and _uses_native():
        from dvmsr.ops import native_cpu

        wide = float64 if u.dtype == float64 else float32
        y, h_last = native_cpu.selective_scan(
            *(t.to(wide) for t in (u, delta, A, B, C, D, delta_bias, h0)),
            None if z is None else z.to(wide),
            delta_softplus,
            channel_major,
        )
        return y.to(u.dtype), h_last
    return selective_scan_chunked(
        u, delta, A, B, C, D, delta_bias, h0, z, delta_softplus, channel_major
    )


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    tail: Tensor | None = None,
    activation: bool = True,
) -> tuple[Tensor, Tensor]:
    """Depthwise convolution over the current and the K-1 tokens before; token-major.

    Args:
        x: (B, L, D), FP16, BF16, FP32 or FP64.
        weight: (D, K); the last tap meets the current token.
        bias: (D); zero where it is None.
        tail: the K-1 tokens before the first, (B, K-1, D); zero where it is None.
        activation: whether SiLU follows.

    Returns:
        y (B, L, D) in the type of x, and the last K-1 tokens of tail and x together (B, K-1, D).

    Raises:
        ValueError: if the shapes do not fit together.
    """
    batch, length, channels = x.shape
    width = weight.shape[-1]
    before = (batch, width - 1, channels)
    _check(
        "causal_conv1d",
        weight=(weight, (channels, width)),
        bias=(bias, (channels,)),
        tail=(tail, before),
    )
    on_cuda = _takes_cuda_kernels(x)
    bias = weight.new_zeros(channels) if bias is None else bias
    if (
        x.is_cuda
        and not on_cuda
        and tail is None
        and length >= width - 1
        and width <= 4
        and (conv := _causal_conv1d_fn()) is not None
    ):
        act = "silu" if activation else None
        y = conv(x.transpose(1, 2), weight.to(x.dtype), bias.to(x.dtype), activation=act)
        return y.transpose(1, 2), x[:, length - (width - 1) :]
    if tail is None:
        tail = x.new_zeros(before)
    if on_cuda:
        from dvmsr.ops import native_cpu

        tail = tail.to(x.dtype)
        return native_cpu.causal_conv1d(x, weight.float(), bias.float(), tail, activation)
    if x.device.type in ("cpu", "meta") and _uses_native():
        from dvmsr.ops import native_cpu

        wide = float64 if x.dtype == float64 else float32
        y, new_tail = native_cpu.causal_conv1d(
            *(t.to(wide) for t in (x, weight, bias, tail)), activation
        )
        return y.to(x.dtype), new_tail.to(x.dtype)
    return causal_conv1d_shifted(x, weight, bias, tail, activation)
