"""A scan's channel-major tensors as token-major ones and back: views."""

from collections.abc import Iterable

from torch import Tensor

SEQUENCES, ROWS = frozenset({0, 1, 8}), frozenset({3, 4})
"""Which inputs of the scan, in its order, are (B, L, D) and which (B, L, G, N)."""


def tokens_first(inputs: Iterable[Tensor]) -> list[Tensor]:
    """Of inputs in the operator's order u, delta and z (B, D, L) -> (B, L, D), and B and C
    (B, G, N, L) -> (B, L, G, N)."""
    return [_moved(t, i, (0, 3, 1, 2)) for i, t in enumerate(inputs)]


def channels_first(inputs: Iterable[Tensor]) -> list[Tensor]:
    """The way back, of inputs or their gradients."""
    return [_moved(t, i, (0, 2, 3, 1)) for i, t in enumerate(inputs)]


def _moved(tensor: Tensor, position: int, order: tuple[int, ...]) -> Tensor:
    if position in SEQUENCES:
        return tensor.mT
    return tensor.permute(order) if position in ROWS else tensor
