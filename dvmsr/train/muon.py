"""Muon: momentum whose updates are orthogonalised matrices (K. Jordan and others, 2024).

`torch.optim.Muon` computes in bfloat16, which most processors emulate, and takes matrices only.
This one computes in FP32, and takes convolutions as matrices (out, in * kh * kw).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dvmsr.model import DVMSR

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, chosen by its authors to lift small singular values fast."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of Adam's updates, over its rate; updates are scaled to it, so that both take
the same rates (Liu and others, arXiv 2502.16982)."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, roughly: singular values 0.7 to 1.2.

    Newton-Schulz iteration; (m, n) -> (m, n), FP32. Zero stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    X = matrix.T if tall else matrix
    X = X / X.norm().clamp(min=1e-12)
    for _ in range(ITERATIONS):
        XX = X @ X.T
        X = torch.addmm(X, torch.addmm(XX, XX, XX, beta=b, alpha=c), X, beta=a)
    return X.T if tall else X


class Muon(torch.optim.Optimizer):
    """Gradient descent with Nesterov momentum, each update orthogonalised.

    Args:
        params: weights with two or more dimensions.
        lr: the rate; an update changes weights by `RMS * lr` (root mean square).
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients; those without any are left alone."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"])

    def _update(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalised(gradient.lerp(momentum, MOMENTUM).flatten(1).float())
        scale = RMS * max(update.shape) ** 0.5
        weight.add_(update.view_as(weight), alpha=-rate * scale)


def hidden_matrices(network: DVMSR) -> list[Tensor]:
    """The weights that Muon is meant for: those of linear layers and convolutions between the
    first convolution and the upsampler.

    Not the rank-R projection to delta, whose scale matters, nor depthwise convolutions, biases,
    norms, A and D.
    """
    return [
        layer.weight
        for name, layer in (*network.layers.named_modules(), ("", network.conv_after_body))
        if isinstance(layer, nn.Linear | nn.Conv2d) and "dt_proj" not in name
    ]
