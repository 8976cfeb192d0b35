"""Small networks in the patterns of other people's, over dvmsr's operators, and what cannot be
exported."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvmsr import ops


class SS2D(nn.Module):
    """The scan in four directions of VMamba (arXiv 2401.10166, Fig. 3): G = 4."""

    def __init__(self, channels: int = 6, state: int = 4, rank: int = 2) -> None:
        super().__init__()
        self.channels, self.sizes = channels, [rank, state, state]
        self.x_proj = nn.Parameter(torch.randn(4, rank + 2 * state, channels) * 0.2)
        self.dt_proj = nn.Parameter(torch.randn(4, channels, rank) * 0.2)
        self.bias = nn.Parameter(torch.randn(4 * channels) - 3)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(4 * channels, 1))
        self.D = nn.Parameter(torch.ones(4 * channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        B, C, H, W = x.shape
        xs = x.new_empty(B, 4, C, H * W)
        xs[:, 0] = x.flatten(2)
        xs[:, 1] = x.transpose(2, 3).flatten(2)
        xs[:, 2:] = xs[:, :2].flip(-1)
        dbl = torch.einsum("bkdl,kcd->bkcl", xs, self.x_proj)
        dt, Bs, Cs = dbl.split(self.sizes, 2)
        delta = torch.einsum("bkrl,kdr->bkdl", dt, self.dt_proj)
        y, _ = ops.selective_scan(
            xs.flatten(1, 2).mT, delta.flatten(1, 2).mT, -self.A_log.exp(),
            Bs.permute(0, 3, 1, 2), Cs.permute(0, 3, 1, 2), self.D, self.bias,
        )  # fmt: skip
        y = y.mT.unflatten(1, (4, C))
        y = y[:, :2] + y[:, 2:].flip(-1)
        return (y[:, 0] + y[:, 1].unflatten(2, (W, H)).transpose(2, 3).flatten(2)).view(B, C, H, W)


class Gated(nn.Module):
    """The mixer of Vim (arXiv 2401.09417): a causal convolution and a gated scan in two directions,
    a second output, and a keyword that scales."""

    def __init__(self, channels: int = 8, state: int = 4) -> None:
        super().__init__()
        self.project = nn.Linear(channels, 2 * channels)
        self.dbc = nn.Linear(channels, channels + 2 * state)
        self.weight = nn.Parameter(torch.randn(channels, 4) * 0.3)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(channels, 1))
        self.sizes = [channels, state, state]

    def forward(self, tokens: Tensor, scale: Tensor | None = None) -> dict[str, Tensor]:
        """(B, L, C) -> tokens like them, and the last states of both directions (B, C, N)."""
        x, z = self.project(tokens).chunk(2, -1)
        outputs, states = [], []
        for flip in (False, True):
            u, gate = (t.flip(1) if flip else t for t in (x, z))
            u, _ = ops.causal_conv1d(u, self.weight)
            delta, B, C = self.dbc(u).split(self.sizes, -1)
            A = -self.A_log.exp()
            y, h = ops.selective_scan(u, delta, A, B.unsqueeze(2), C.unsqueeze(2), z=gate)
            outputs.append(y.flip(1) if flip else y)
            states.append(h)
        mixed = sum(outputs)
        return {
            "tokens": mixed if scale is None else mixed * scale,
            "states": torch.stack(states),
        }


class Windows(nn.Module):
    """Scans inside windows (LocalMamba, MambaVision); `fixed` has the arithmetic of Swin's
    window_reverse, which makes the batch a constant."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.inner = SS2D()

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        size = 4
        windows = x.view(B, C, H // size, size, W // size, size).permute(0, 2, 4, 1, 3, 5)
        windows = self.inner(windows.reshape(-1, C, size, size))
        batch = int(windows.shape[0] / (H * W / size / size)) if self.fixed else B
        whole = windows.view(batch, H // size, W // size, C, size, size)
        return whole.permute(0, 3, 1, 4, 2, 5).reshape(batch, C, H, W)


class Noise(nn.Module):
    """Draws random numbers while it infers."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Branch(nn.Module):
    """Decides by its data."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x


class Untranslated(nn.Module):
    """Uses an operator that PyTorch's exporter does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.airy_ai(x)


class ManyAxes(nn.Module):
    """Attention of five axes, all of them in its mask."""

    def forward(self, x: Tensor) -> Tensor:
        many = x[None, None]
        return F.scaled_dot_product_attention(many, many, many, attn_mask=many @ many.mT)


class Picky(nn.Module):
    """Takes heights that 8 divides alone, up to a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] > self.limit:
            raise ValueError("too high")
        return F.pixel_shuffle(F.pixel_unshuffle(x, 8), 8)


class Padded(nn.Module):
    """Pads to multiples of 8 where that is needed, as many networks with windows do."""

    def forward(self, x: Tensor) -> Tensor:
        missing = -x.shape[2] % 8
        return F.pad(x, (0, 0, 0, missing)) if missing else x


class NotFinite(nn.Module):
    """Divides by zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x * 0)


class Limited(nn.Module):
    """Takes another branch beyond a size."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[2] > 300 else x


class Odd(nn.Module):
    """Gives one of its inputs and a constant, and changes the input in place."""

    def forward(self, x: Tensor) -> list[Tensor]:
        doubled = x.clone()
        x.add_(1)
        return [doubled, torch.ones(3), doubled * 2]


def ss2d() -> nn.Module:
    torch.manual_seed(0)
    return SS2D()


def gated() -> nn.Module:
    torch.manual_seed(0)
    return Gated()
