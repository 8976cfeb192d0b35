"""Exact streaming in plain data: what the network carries from one strip of rows to the next.

Scans and causal convolutions run in raster order, norms and projections pixel by pixel, so they
stop after any row and go on. A 3x3 convolution needs the row below: it lags one row behind its
input and keeps the last two rows of it. A residual branch beside such convolutions waits in a queue
of as many rows as they lag. Padding enters at every convolution: each puts a row of zeros on
top of its first strip and, on the last, one below, by which all lags end at once.

PyTorch (`dvmsr.streaming`), the exporter (`dvmsr.export.onnx.streaming_graph`) and the runtime
share this description; it needs no torch.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from dvmsr.config import UPSAMPLER_CHANNELS, DVMSRConfig
from dvmsr.errors import IncompatibleModelError, UsageError

TOP, BOTTOM = "top", "bottom"
"""Names of the flags of a step: whether its strip begins, and ends, the image."""

CACHED_ROWS = 2
"""Rows of its input that a 3x3 convolution keeps. Of those before the top one counts: it is the
zero padding."""

Strip = TypeVar("Strip")


@dataclass(frozen=True)
class State:
    """One tensor that a step takes and gives; zero before the first."""

    name: str
    """Its place in the network, as in the exported graph, and what it is."""
    sizes: tuple[int, ...]
    """Without the batch: (D, N) of a scan's state; (K-1, D) of a causal convolution's last tokens;
    rows, columns per column of the image, and channels of a convolution's or queue's rows."""

    @property
    def next(self) -> str:
        """The name under which a step gives it."""
        return f"{self.name}.next"

    @property
    def always_fp32(self) -> bool:
        """Whether it is FP32 in half-precision networks too."""
        return self.name.endswith("/scan.h")

    def shape(self, batch: int, width: int) -> tuple[int, ...]:
        """For images of that width."""
        if len(self.sizes) == 2:
            return batch, *self.sizes
        rows, columns, channels = self.sizes
        return batch, rows, columns * width, channels


def states(config: DVMSRConfig) -> tuple[State, ...]:
    """All states of a network in the order in which a step uses them.

    Raises:
        IncompatibleModelError: if the network is bidirectional.
    """
    if config.bidirectional:
        raise IncompatibleModelError(
            "a bidirectional network cannot stream, because its backward scans begin at the last "
            "pixel of the image; give it the whole image"
        )
    C, D = config.channels, config.inner_channels
    found = [State("conv_first.rows", (CACHED_ROWS, 1, 3))]
    for i, depth in enumerate(config.depths):
        for j in range(depth):
            place = f"rssb{i}/vimm{j}"
            found += [
                State(f"{place}/conv1d.tail", (config.conv_width - 1, D)),
                State(f"{place}/scan.h", (D, config.state)),
            ]
        found += [
            State(f"rssb{i}/conv.rows", (CACHED_ROWS, 1, C)),
            State(f"rssb{i}/skip.rows", (1, 1, C)),
        ]
    found += [
        State("conv_after_body.rows", (CACHED_ROWS, 1, C)),
        State("skip.rows", (len(config.depths) + 1, 1, C)),
    ]
    found += [
        State(f"{place}.rows", (CACHED_ROWS, columns, channels))
        for place, columns, channels in upsampler_convolutions(config)
    ]
    return tuple(found)


def upsampler_convolutions(config: DVMSRConfig) -> list[tuple[str, int, int]]:
    """Place, columns per column of the image, and input channels of the upsampler's convolutions,
    in their order."""
    if config.upsampler == "pixelshuffledirect":
        return [("upsample/conv", 1, config.channels)]
    U = UPSAMPLER_CHANNELS
    found = [("conv_before_upsample/conv", 1, config.channels), ("upsample/conv0", 1, U)]
    if config.scale == 4:
        found.append(("upsample/conv1", 2, U))
    return [*found, ("conv_last", config.scale, U)]


def least_rows(config: DVMSRConfig) -> int:
    """Rows that the first strip must have, unless it is the last too, for every convolution to
    have something to give: one more than there are convolutions before the enlargement."""
    before = [place for place, columns, _ in upsampler_convolutions(config) if columns == 1]
    return 1 + len(config.depths) + 1 + len(before) + 1


def arrange(
    strips: Iterable[Strip], least: int, join: Callable[[list[Strip]], Strip]
) -> Iterator[tuple[Strip, bool, bool]]:
    """Strips as steps take them, each with whether it is at the top and at the bottom.

    The strips that make up the first `least` rows become one, and empty ones are left out.

    Args:
        strips: images (B, 3, rows, W) from top to bottom.
        join: concatenates rows.

    Raises:
        UsageError: if there are no rows at all, or images differ in more than their rows.
    """
    waiting: list[Any] = []
    rows, top = 0, True
    for strip in strips:
        shape = tuple(strip.shape)  # type: ignore[attr-defined]
        if waiting and (shape[:2], shape[3]) != (waiting[0].shape[:2], waiting[0].shape[3]):
            raise UsageError(
                f"strips of one image must differ in their rows only, not {shape} after "
                f"{tuple(waiting[0].shape)}"
            )
        if shape[2] == 0:
            continue
        if rows >= (least if top else 1):
            yield _joined(waiting, join), top, False
            waiting, rows, top = [], 0, False
        waiting.append(strip)
        rows += shape[2]
    if not waiting:
        raise UsageError("the image has no rows")
    yield _joined(waiting, join), top, True


def _joined(strips: list[Strip], join: Callable[[list[Strip]], Strip]) -> Strip:
    return strips[0] if len(strips) == 1 else join(strips)
