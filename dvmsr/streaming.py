"""The network strip by strip: any image in bounded memory, equal to the whole up to rounding.

`dvmsr.strips` describes what is carried from strip to strip.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvmsr.model import DVMSR, to_tokens
from dvmsr.strips import CACHED_ROWS, arrange, least_rows, states, upsampler_convolutions


def stream(network: DVMSR, strips: Iterable[Tensor]) -> Iterator[Tensor]:
    """Upscale an image that comes in strips of rows.

    Args:
        strips: RGB in [0, 1], (b, 3, rows, w), from top to bottom, each of any number of rows.

    Yields:
        The result's rows, (b, 3, some, s*w). They come later than theirs of the input, and not one
        piece per strip.

    Raises:
        IncompatibleModelError: if the network is bidirectional.
        UsageError: if there are no rows, or the strips do not fit together.
    """
    carried: dict[str, Tensor] = {}
    arranged = arrange(strips, least_rows(network.config), lambda parts: torch.cat(parts, 2))
    for strip, top, bottom in arranged:
        if top:
            carried = initial_states(network, strip.shape[0], strip.shape[3])
        rows, carried = step(network, strip, carried, top, bottom)
        yield rows


def initial_states(network: DVMSR, batch: int, width: int) -> dict[str, Tensor]:
    """Zeros, where and as the network computes.

    Raises:
        IncompatibleModelError: if the network is bidirectional.
    """
    zero = network.conv_first.weight.new_zeros
    wide = torch.promote_types(network.conv_first.weight.dtype, torch.float32)
    return {
        state.name: zero(state.shape(batch, width), dtype=wide if state.always_fp32 else None)
        for state in states(network.config)
    }


def step(
    network: DVMSR, strip: Tensor, carried: Mapping[str, Tensor], top: bool, bottom: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """One strip.

    Args:
        strip: the image's next rows, (b, 3, rows, w); at the top, unless at the bottom as well, at
            least `dvmsr.strips.least_rows`.
        carried: `initial_states`, or what the step before returned.
        top: whether the strip begins the image.
        bottom: whether the strip ends the image.

    Returns:
        The result's next rows, (b, 3, some, s*w), and what the next step takes.
    """
    this = _Step(carried, top, bottom)
    return this.network(network, strip), this.given


class _Step:
    """`DVMSR.forward` once more, with states. Methods and places are named as in the graph."""

    def __init__(self, carried: Mapping[str, Tensor], top: bool, bottom: bool) -> None:
        self.carried, self.top, self.bottom = carried, top, bottom
        self.given: dict[str, Tensor] = {}

    def network(self, network: Any, strip: Tensor) -> Tensor:
        """(b, 3, rows, w) -> (b, 3, some, s*w)"""
        shallow = self.conv3x3("conv_first", strip - network.mean, network.conv_first)
        x = network.patch_embed(to_tokens(shallow))  # (b, L, C)
        for i, rssb in enumerate(network.layers):
            x = self.rssb(f"rssb{i}", x, rssb, strip.shape[3])
        x = to_rows(network.norm_f(x), strip.shape[3])
        deep = self.conv3x3("conv_after_body", x, network.conv_after_body)  # (b, C, rows, w)
        x = self.skip("skip", deep, shallow)
        parts = (network.conv_before_upsample, network.upsample, network.conv_last)
        places = iter(upsampler_convolutions(network.config))
        for module in (leaf for part in parts for leaf in part.modules() if not [*leaf.children()]):
            convolves = isinstance(module, nn.Conv2d)
            x = self.conv3x3(next(places)[0], x, module) if convolves else module(x)
        return x + network.mean

    def rssb(self, name: str, x: Tensor, rssb: Any, width: int) -> Tensor:
        """(b, L, C) -> (b, L', C)"""
        deep = x
        for j, vimm in enumerate(rssb.residual_group.blocks):
            deep = self.vimm(f"{name}/vimm{j}", deep, vimm)
        deep = self.conv3x3(f"{name}/conv", to_rows(deep, width), rssb.conv)
        return to_tokens(self.skip(f"{name}/skip", deep, to_rows(x, width)))

    def vimm(self, name: str, x: Tensor, vimm: Any) -> Tensor:
        """(b, L, C) -> (b, L, C)"""
        tail, h = f"{name}/conv1d.tail", f"{name}/scan.h"
        y, self.given[tail], self.given[h] = vimm.mixer.step(
            vimm.norm(x), self.carried[tail], self.carried[h]
        )
        return x + y if vimm.residual else y

    def conv3x3(self, name: str, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """(b, C_in, rows, w) -> (b, C_out, rows, w): one row less at the top, one more at the
        bottom."""
        cache = self.carried[f"{name}.rows"][:, int(self.top) :]  # one row of padding at the top
        below = cache.new_zeros(cache[:, : int(self.bottom)].shape)
        seen = torch.cat([cache, x.permute(0, 2, 3, 1), below], 1)  # (b, rows, w, C_in)
        self.given[f"{name}.rows"] = seen[:, -CACHED_ROWS:]
        return F.conv2d(seen.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=(0, 1))

    def skip(self, name: str, deep: Tensor, x: Tensor) -> Tensor:
        """Adds to each row of `deep`, which lags, the row of x that belongs to it; (b, C, rows, w)
        both."""
        queue = self.carried[f"{name}.rows"]
        waiting = queue.shape[1]
        queued = torch.cat([queue[:, waiting * self.top :], x.permute(0, 2, 3, 1)], 1)
        self.given[f"{name}.rows"] = queued[:, -waiting:]
        return deep + queued[:, : deep.shape[2]].permute(0, 3, 1, 2)


def to_rows(tokens: Tensor, width: int) -> Tensor:
    """(b, rows*w, C) -> (b, C, rows, w), a channels-last view."""
    return tokens.unflatten(1, (-1, width)).permute(0, 3, 1, 2)
