"""How many rows of an image are computed at once."""

from __future__ import annotations

from dvmsr.config import DVMSRConfig
from dvmsr.runtime import memory
from dvmsr.strips import least_rows

TOKENS_AT_ONCE = 16384
"""Pixels of a strip in which ONNX Runtime computes on a CPU, even what would fit at once. Taller
ones cost memory, shorter ones time (benchmarks/cpu/streaming.py)."""


def choose(
    config: DVMSRConfig, backend: str, height: int, width: int, limit: int | None = None
) -> int:
    """A height of strips with which the image fits the memory if any does; `height` means at once.

    Args:
        limit: bytes that the image may take; None means half of what is free.
    """
    if not memory.known(backend):
        return height
    least = least_rows(config)
    wanted = height if backend == "torch" else max(least, TOKENS_AT_ONCE // width)
    rows = min(height, wanted)
    if limit is None:
        free = memory.available()
        limit = None if free is None else free // 2
    if limit is None:
        return rows
    if rows == height and memory.estimate(config, backend, height, width) <= limit:
        return rows
    while rows > least and memory.estimate_strips(config, backend, height, width, rows) > limit:
        rows = max(least, rows // 2)
    return rows
