"""How many rows of an image are computed at once."""

from functools import partial

from dvmsr.config import DVMSRConfig
from dvmsr.runtime import memory
from dvmsr.strips import least_rows

TOKENS_AT_ONCE = 1 << 16
"""Pixels of a strip in which ONNX Runtime computes on a CPU, even what would fit at once. Taller
ones cost memory, shorter ones time (benchmarks/cpu/streaming.py)."""


def choose(
    config: DVMSRConfig,
    backend: str,
    height: int,
    width: int,
    limit: int | None = None,
    held: int | None = None,
) -> int:
    """A height of strips with which the image fits the memory if any does; `height` means at once.

    Args:
        limit: bytes that the image may take; None means half of what is free.
        held: for an image that is read and written by rows, too: as of `memory.estimate_by_rows`.
    """
    if not memory.known(backend):
        return height
    least = least_rows(config)
    wanted = height if backend == "torch" else max(least, TOKENS_AT_ONCE // width)
    rows = min(height, wanted)
    limit = memory.budget(limit)
    if limit is None:
        return rows
    if held is None:
        if rows == height and memory.estimate(config, backend, height, width) <= limit:
            return rows
        needed = partial(memory.estimate_strips, config, backend, height, width)
    else:
        needed = partial(memory.estimate_by_rows, config, backend, width, held=held)
    while rows > least and needed(rows=rows) > limit:
        rows = max(least, rows // 2)
    return rows
