"""Blocks in the patterns of published Mamba networks, written from their papers, over the stand-in
for mamba-ssm. Small, with random weights, for images or tokens of any size unless it says so."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvmsr.compat.inner import mamba_inner_fn_no_out_proj
from dvmsr.compat.mamba import Mamba
from dvmsr.compat.scan import selective_scan_fn


class Scan(nn.Module):
    """A selective scan of (B, D, L) whose step, B and C are made of its input."""

    def __init__(self, channels: int, state: int = 4, rank: int = 2) -> None:
        super().__init__()
        self.sizes = [rank, state, state]
        self.project = nn.Linear(channels, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, channels)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))

    def forward(
        self, x: Tensor, shift_B: Tensor | None = None, shift_C: Tensor | None = None,
        last: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        step, B, C = self.project(x.mT).split(self.sizes, -1)
        B, C = B.mT, C.mT
        B = B if shift_B is None else B + shift_B
        C = C if shift_C is None else C + shift_C
        return selective_scan_fn(
            x.contiguous(), F.linear(step, self.step.weight).mT.contiguous(), -self.A_log.exp(),
            B.contiguous(), C.contiguous(), self.D.float(), z=None, delta_bias=self.step.bias,
            delta_softplus=True, return_last_state=last,
        )  # fmt: skip


class Routed(nn.Module):
    """Attentive state space of MambaIRv2 (arXiv 2411.15269): tokens (B, L, D) are sorted by the
    class that each is routed to, scanned, and put back; each class adds to C."""

    def __init__(self, channels: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.route = nn.Linear(channels, classes)
        self.prompts = nn.Embedding(classes, 4)
        self.scan = Scan(channels)

    def forward(self, x: Tensor) -> Tensor:
        classes = self.route(x).argmax(-1)
        _, order = torch.sort(classes, dim=-1, stable=True)
        back = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1]).expand_as(order)
        )
        ordered = x.gather(1, order.unsqueeze(-1).expand_as(x))
        y = self.scan(ordered.mT, None, self.prompts(classes).mT)
        return x + y.mT.gather(1, back.unsqueeze(-1).expand_as(x))


class Snake(nn.Module):
    """Continuous scans of PlainMamba (arXiv 2403.17695) over (B, L, D), the tokens of an image of
    one size: two ways along lists of indices, each step of which adds its direction to B."""

    def __init__(self, channels: int = 6, height: int = 4, width: int = 5) -> None:
        super().__init__()
        rows = [[i * width + j for j in range(width)][:: (-1) ** i] for i in range(height)]
        forth = [index for row in rows for index in row]
        self.orders = (tuple(forth), tuple(reversed(forth)))
        self.back = tuple(
            tuple(sorted(range(len(order)), key=order.__getitem__)) for order in self.orders
        )
        ways = {1: 1, -1: 2, width: 3, -width: 4}
        steps = [ways[after - before] for before, after in pairwise(forth)]
        self.directions = ((0, *steps), (0, *reversed(steps)))
        self.shifts = nn.Parameter(torch.randn(5, 4) * 0.1)
        self.scan = Scan(channels)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        found = []
        for order, back, directions in zip(self.orders, self.back, self.directions, strict=True):
            shift = self.shifts[directions, :][None].expand(batch, -1, -1).permute(0, 2, 1)
            y = self.scan(x[:, order, :].permute(0, 2, 1), shift)
            found.append(y.permute(0, 2, 1)[:, back, :])
        return sum(found) * F.silu(x)


class Skipping(nn.Module):
    """Scans of every other pixel of EfficientVMamba (arXiv 2403.09977): four images of a quarter,
    the last two by columns; odd sizes are padded."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.scans = nn.ModuleList(Scan(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        _, _, height, width = x.shape
        x = F.pad(x, (0, -width % 2, 0, -height % 2))
        y = torch.empty_like(x)
        for i, scan in enumerate(self.scans):
            part = x[:, :, i // 2 :: 2, i % 2 :: 2]
            part = part.transpose(2, 3) if i > 1 else part
            done = scan(part.flatten(2)).view(part.shape)
            y[:, :, i // 2 :: 2, i % 2 :: 2] = done.transpose(2, 3) if i > 1 else done
        return y[:, :, :height, :width]


class Windowed(nn.Module):
    """Scans inside windows of MambaVision (arXiv 2407.08083), which pads to whole windows: one
    scan, with half of the channels beside it."""

    def __init__(self, channels: int = 6, size: int = 3) -> None:
        super().__init__()
        self.size = size
        self.into = nn.Linear(channels, 2 * channels)
        self.scan = Scan(channels)
        self.out = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        size = self.size
        x = F.pad(x, (0, -width % size, 0, -height % size))
        down, across = x.shape[2] // size, x.shape[3] // size
        windows = x.view(batch, channels, down, size, across, size).permute(0, 2, 4, 3, 5, 1)
        u, beside = self.into(windows.reshape(-1, size * size, channels)).mT.chunk(2, 1)
        y = self.out(torch.cat([self.scan(F.silu(u)), F.silu(beside)], 1).mT)
        y = y.view(batch, down, across, size, size, channels).permute(0, 5, 1, 3, 2, 4)
        return y.reshape(batch, channels, down * size, across * size)[:, :, :height, :width]


class LastState(nn.Module):
    """A scan that gives its last state, too."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.scan = Scan(channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y, state = self.scan(x.mT, last=True)
        return {"tokens": y.mT, "state": state}


def mamba(fast: bool) -> nn.Module:
    """mamba-ssm's `Mamba`, on the path whose parts are fused, or on the other."""
    return Mamba(d_model=6, d_state=4, use_fast_path=fast)


class Directions(nn.Module):
    """Two mixers of Vim (arXiv 2401.09417) over (B, L, M): mamba-ssm's fused function without its
    outer projection, forwards and backwards."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.forth, self.back = (Mamba(d_model=channels, d_state=4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        xz = self.forth.in_proj.weight @ x.mT
        y = _scanned(self.forth, xz) + _scanned(self.back, xz.flip([-1])).flip([-1])
        return x + self.forth.out_proj(y.mT)


def _scanned(mamba: Mamba, xz: Tensor) -> Tensor:
    return mamba_inner_fn_no_out_proj(
        xz, mamba.conv1d.weight, mamba.conv1d.bias, mamba.x_proj.weight, mamba.dt_proj.weight,
        -mamba.A_log.float().exp(), None, None, mamba.D.float(),
        delta_bias=mamba.dt_proj.bias.float(), delta_softplus=True,
    )  # fmt: skip


class Forms(nn.Module):
    """A mixer without its outer projection in two directions, one with it, and a scan that has
    neither gate nor softplus and is channel-major."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Directions(), Mamba(d_model=6, d_state=4)
        self.scan = Scan(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.scan(self.second(self.first(x)).mT).mT
