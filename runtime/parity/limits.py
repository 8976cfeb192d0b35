"""How far two networks' outputs may be apart; needs nothing but Python."""

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import TypeVar

from dvmsr.errors import UsageError

FP32_MAX_ABS = 2e-4
"""Largest difference of two FP32 networks anywhere in the output, whose range is 1."""
FP16_MIN_PSNR = 60.0
"""Lowest PSNR in dB, peak 1, where one of the two computes in half precision."""
BF16_MIN_PSNR = 48.0
"""The same for bfloat16, which has three bits less; measured: 50.3 to 57.8 dB."""
CPU_RELATIVE = 1e-5
"""Largest difference of two FP32 networks on processors, relative to the largest magnitude of an
output."""
GPU_RELATIVE = 1e-3
"""The same where one computes on a GPU."""
HALF_RELATIVE = 1e-2
"""The same where one computes in half precision."""
BF16_RELATIVE = 5e-2
"""The same for bfloat16, which has three bits less; measured: up to 1.5e-2 in small networks."""


@dataclass(frozen=True)
class Limits:
    """How far two outputs may be apart; what is None is not limited."""

    max_abs: float | None = None
    """Largest absolute difference."""
    psnr: float | None = None
    """Lowest PSNR in dB."""
    delta_psnr: float | None = None
    """Largest absolute difference of the two PSNRs against the truth, in dB."""

    def broken(self, max_abs: float, psnr: float, delta_psnr: float | None = None) -> list[str]:
        """What is beyond the limits, in words; a NaN always is."""
        found = []
        if self.max_abs is not None and not max_abs <= self.max_abs:
            found.append(f"max abs {max_abs:.2g} where {self.max_abs:g} is allowed")
        if self.psnr is not None and not psnr >= self.psnr:
            found.append(f"{psnr:.2f} dB where {self.psnr:g} dB are asked for")
        if self.delta_psnr is not None and not abs(delta_psnr or 0) <= self.delta_psnr:
            found.append(
                f"PSNR changed by {delta_psnr:.4f} dB where {self.delta_psnr:g} is allowed"
            )
        return found

    def __str__(self) -> str:
        words = [
            f"max abs at most {self.max_abs:g}" if self.max_abs is not None else "",
            f"at least {self.psnr:g} dB" if self.psnr is not None else "",
            f"PSNR within {self.delta_psnr:g} dB" if self.delta_psnr is not None else "",
        ]
        return ", ".join(filter(None, words))


@dataclass(frozen=True)
class ArrayLimits:
    """The same for arrays of any range."""

    relative: float | None = None
    """Largest absolute difference of an output, relative to the largest magnitude in it."""
    max_abs: float | None = None
    """Largest absolute difference."""

    def broken(self, relative: float, max_abs: float) -> list[str]:
        """What is beyond the limits, in words; a NaN always is."""
        found = []
        if self.relative is not None and not relative <= self.relative:
            found.append(f"{relative:.2g} of the largest where {self.relative:g} is allowed")
        if self.max_abs is not None and not max_abs <= self.max_abs:
            found.append(f"max abs {max_abs:.2g} where {self.max_abs:g} is allowed")
        return found

    def __str__(self) -> str:
        words = [
            f"at most {self.relative:g} of the largest" if self.relative is not None else "",
            f"max abs at most {self.max_abs:g}" if self.max_abs is not None else "",
        ]
        return ", ".join(filter(None, words))


AnyLimits = TypeVar("AnyLimits", Limits, ArrayLimits)


def default_limits(*precisions: str) -> Limits:
    """The limits for networks of these precisions, `fp32` or another, compared with each other."""
    if all(precision == "fp32" for precision in precisions):
        return Limits(max_abs=FP32_MAX_ABS)
    return Limits(psnr=BF16_MIN_PSNR if "bf16" in precisions else FP16_MIN_PSNR)


def default_array_limits(precisions: Collection[str], on_gpu: bool) -> ArrayLimits:
    """The limits for networks of these precisions, compared with each other.

    Args:
        on_gpu: whether one of them computes there.
    """
    if "bf16" in precisions:
        return ArrayLimits(relative=BF16_RELATIVE)
    if "fp16" in precisions:
        return ArrayLimits(relative=HALF_RELATIVE)
    return ArrayLimits(relative=GPU_RELATIVE if on_gpu else CPU_RELATIVE)


def parse_limits(text: str, kind: type[AnyLimits]) -> AnyLimits:
    """`max-abs=1e-3,psnr=55`: fields of that kind of limits, each at most once.

    Raises:
        UsageError: for anything else.
    """
    names = [field.name for field in fields(kind)]
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        key = name.strip().replace("-", "_")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        signed = key in ("psnr", "delta_psnr")  # decibels; nothing differs by less than nothing
        if key in names and math.isfinite(value) and value < 0 and not signed:
            raise UsageError(f"--limits {part.strip()} is below 0; give the most that may differ")
        if key not in names or key in values or not math.isfinite(value):
            *first, last = (f"{name.replace('_', '-')}=NUMBER" for name in names)
            raise UsageError(
                f"--limits takes {', '.join(first)} and {last}, separated by commas, not {part!r}"
            )
        values[key] = value
    return kind(**values)
