"""The depthwise convolution as causal-conv1d offers it, channel-major."""

import torch
from torch import Tensor

from dvmsr import ops
from dvmsr.compat.refusals import NotSupportedError


def _applies_silu(activation: str | None) -> bool:
    if activation not in (None, "silu", "swish"):
        raise NotSupportedError(
            f"causal_conv1d: activation {activation!r} is not supported: None, silu or swish"
        )
    return activation is not None


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Depthwise convolution over the current and the K-1 tokens before.

    Args:
        x: (B, D, L), of any strides.
        weight: (D, K); the last tap meets the current token.
        bias: (D).
        initial_states: the tokens before the first, (B, D, K-1).
        final_states_out: what the final states are written to.
        activation: None, "silu" or "swish".

    Returns:
        y (B, D, L) in the type of x, contiguous; with `return_final_states` also the last K-1
        tokens, (B, D, K-1).

    Raises:
        NotSupportedError: with seq_idx, or for another activation.
        ValueError: if the shapes do not fit together.
    """
    if seq_idx is not None:
        raise NotSupportedError("causal_conv1d_fn: seq_idx is not supported: give one sequence")
    applied = _applies_silu(activation)
    tail = None if initial_states is None else initial_states.mT
    y, new_tail = ops.causal_conv1d(x.mT, weight, bias, tail, applied)
    y = y.mT.contiguous()
    if not return_final_states:
        return y
    if final_states_out is None:
        return y, new_tail.mT
    return y, final_states_out.copy_(new_tail.mT)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """The next tokens; `conv_state` is updated in place, without a gradient.

    Args:
        x: (B, D) or (B, D, L).
        conv_state: the tokens before, (B, D, S) with S of at least K-1.
        weight, bias, activation: as `causal_conv1d_fn`.

    Returns:
        Like x.

    Raises:
        NotSupportedError: with cache_seqlens or conv_state_indices, or for another activation.
    """
    for name, given in (
        ("cache_seqlens", cache_seqlens),
        ("conv_state_indices", conv_state_indices),
    ):
        if given is not None:
            raise NotSupportedError(f"causal_conv1d_update: {name} is not supported")
    applied = _applies_silu(activation)
    tokens = x.unsqueeze(-1) if x.dim() == 2 else x
    kept = conv_state.shape[-1]
    before = conv_state[..., kept - (weight.shape[1] - 1) :].to(x.dtype)
    y, _ = ops.causal_conv1d(tokens.mT, weight, bias, before.mT, applied)
    together = torch.cat([conv_state, tokens.detach().to(conv_state.dtype)], -1)
    conv_state.copy_(together[..., together.shape[-1] - kept :])
    return y.mT.reshape(x.shape)
