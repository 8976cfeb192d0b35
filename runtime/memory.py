"""How much memory an image needs in one piece, and how much there is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from dvmsr.config import UPSAMPLER_CHANNELS, DVMSRConfig
from dvmsr.errors import DvmsrError

_INNER_TENSORS = {"native": 9, "portable": 28, "torch": 10}
"""Peak memory in (L, D) FP32 tensors: what was measured for networks of 60 and 192 channels on
images of 64x64 to 510x339 pixels, and up to a third more. FP16 files compute in FP32 on a CPU."""
_BACKWARD_TENSORS = 3
"""How many more a bidirectional network holds."""
_FLOAT = 4
_OUTPUT_BYTES = 33
"""Per output pixel: two FP32 copies and three of 8 bits, three channels each."""

_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def estimate(config: DVMSRConfig, backend: str, height: int, width: int) -> int:
    """Peak memory in bytes for an image of that size, from above."""
    inner_tensors = _INNER_TENSORS[backend] + _BACKWARD_TENSORS * config.bidirectional
    tokens = inner_tensors * config.inner_channels + 4 * (config.state + config.channels)
    enlarged = config.scale**2
    upsampled = 3 * UPSAMPLER_CHANNELS * enlarged if config.upsampler == "pixelshuffle" else 0
    return height * width * (_FLOAT * max(tokens, upsampled) + _OUTPUT_BYTES * enlarged)


def available() -> int | None:
    """Bytes that this process may still take without swapping; None where that is unknown."""
    amounts = []
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        amounts.append(int(line.split()[1]) * 1024)
    for limit, usage in _CGROUP_FILES:
        with suppress(OSError, ValueError):  # no such group, or its limit is "max"
            used = int(Path(usage).read_text()) - _reclaimable(Path(usage).parent)
            amounts.append(int(Path(limit).read_text()) - used)
    if not amounts:
        with suppress(AttributeError, OSError, ValueError):
            amounts.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(amounts, default=None)


def check(config: DVMSRConfig, backend: str, height: int, width: int, name: str) -> None:
    """Whether an image of that size, called `name` in the message, fits.

    Raises:
        DvmsrError: if it needs more than there is.
    """
    if backend not in _INNER_TENSORS:  # on a GPU, which says itself what it has no room for
        return
    needed, there = estimate(config, backend, height, width), available()
    if there is not None and needed > there:
        raise DvmsrError(
            f"{name} has {width}x{height} pixels, which need about {needed / 1e9:.1f} GB of memory "
            f"where {max(there, 0) / 1e9:.1f} GB are free; cut it into parts or make it smaller"
        )


def _reclaimable(group: Path) -> int:
    """Bytes of cached files that the group's usage includes and that it gives up when needed."""
    for line in (group / "memory.stat").read_text().splitlines():
        if line.startswith(("inactive_file ", "total_inactive_file ")):
            return int(line.split()[1])
    return 0
