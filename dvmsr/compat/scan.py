"""The selective scan as mamba-ssm offers it, channel-major: `selective_scan_fn` and, for one token,
`selective_state_update`."""

import torch
from torch import Tensor

from dvmsr import ops
from dvmsr.compat.refusals import NotSupportedError


def parameters(*tensors: Tensor | None, like: Tensor) -> tuple[Tensor | None, ...]:
    """A, D and delta_bias in the type that the operators compute in for activations like these."""
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    return tuple(tensor if tensor is None else tensor.to(wide) for tensor in tensors)


def refuse_complex(A: Tensor) -> None:
    """Raises NotSupportedError for a complex A."""
    if A.is_complex():
        raise NotSupportedError("a complex A is not supported: dvmsr's selective scan is real")


def groups(name: str, tensor: Tensor) -> Tensor:
    """B or C, (B, N, L) or (B, G, N, L), with its groups: (B, G, N, L), a view.

    Raises:
        NotSupportedError: if it is the same for all tokens, (D, N).
    """
    if tensor.dim() == 4:
        return tensor
    if tensor.dim() == 3:
        return tensor.unsqueeze(1)
    raise NotSupportedError(
        f"{name} of shape {tuple(tensor.shape)} is not supported: "
        "dvmsr's selective scan takes one for each token, (B, N, L) or (B, G, N, L)"
    )


def rows(name: str, tensor: Tensor) -> Tensor:
    """The same, token-major: (B, L, G, N).

    Raises: as `groups`.
    """
    return groups(name, tensor).permute(0, 3, 1, 2)


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """`dvmsr.ops.selective_scan`, channel-major: shapes as `selective_scan_fn`.

    Returns:
        y (B, D, L) in the type of u, contiguous, and the last state (B, D, N).
    """
    refuse_complex(A)
    B, C = groups("B", B), groups("C", C)
    wide, D, delta_bias = parameters(A, D, delta_bias, like=u)
    assert wide is not None
    softplus = bool(delta_softplus)
    return ops.selective_scan(
        u, delta, wide, B, C, D, delta_bias, None, z, softplus, channel_major=True
    )


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool | None = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective scan; also `selective_scan_ref`.

    Args:
        u, delta, z: (B, D, L), FP16, BF16, FP32 or FP64, of any strides.
        A: (D, N), real.
        B, C: (B, N, L) or (B, G, N, L) with a G that divides D.
        D, delta_bias: (D).

    Returns:
        y (B, D, L) in the type of u, contiguous; with `return_last_state` also the state after the
        last token, (B, D, N), FP32. Gradients flow through both.

    Raises:
        NotSupportedError: for a complex A, or B or C of shape (D, N).
        ValueError: if the shapes do not fit together.
    """
    y, h_last = scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return (y, h_last) if return_last_state else y


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """One token; `state` is updated in place, without a gradient.

    Args:
        state: (B, D, N), or (B, H, D, N) with heads, as are the others then.
        x, dt, z: (B, D) or (B, H, D).
        A: (D, N) or (H, D, N).
        B, C: (B, N) or (B, G, N) with a G that divides H.
        D, dt_bias: (D) or (H, D).

    Returns:
        Like x.

    Raises:
        NotSupportedError: for a complex A, or with state_batch_indices.
    """
    if state_batch_indices is not None:
        raise NotSupportedError("selective_state_update: state_batch_indices is not supported")
    refuse_complex(A)
    per_token = [t if t is None else t.reshape(t.shape[0], 1, -1) for t in (x, dt, z)]
    u, delta, gate = per_token
    assert u is not None
    assert delta is not None
    B, C = (t.unsqueeze(1) if t.dim() == 3 else t[:, None, None] for t in (B, C))  # (B, 1, G, N)
    flat = (t if t is None else t.reshape(-1) for t in (D, dt_bias))
    wide, D, dt_bias = parameters(A.reshape(-1, A.shape[-1]), *flat, like=x)
    (h0,) = parameters(state.reshape(state.shape[0], -1, state.shape[-1]), like=x)
    assert wide is not None
    y, h = ops.selective_scan(u, delta, wide, B, C, D, dt_bias, h0, gate, bool(dt_softplus))
    state.copy_(h.detach().reshape(state.shape))
    return y.reshape(x.shape)
