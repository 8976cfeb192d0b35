"""What a comparison with PyTorch says; needs neither torch nor onnx."""

from __future__ import annotations

from dataclasses import dataclass

FP32_MAX_ABS = 2e-4
"""Largest difference of an FP32 file from FP32 PyTorch anywhere in the output, whose range is 1."""
FP16_MIN_PSNR = 60.0
"""Lowest PSNR in dB, peak 1, of an FP16 file against FP32 PyTorch."""


@dataclass(frozen=True)
class Parity:
    """How far one backend's output is from PyTorch's for one input."""

    backend: str
    """`native` (the operators' C++ kernels) or `portable` (the function bodies)."""
    shape: tuple[int, int, int]
    """Batch, height and width of the input."""
    max_abs: float
    psnr: float
    """In dB, peak 1; infinite for equal outputs."""

    def passes(self, precision: str) -> bool:
        """Whether the difference is within the limit of the precision; a NaN is not."""
        return self.psnr >= FP16_MIN_PSNR if precision == "fp16" else self.max_abs <= FP32_MAX_ABS

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"{self.backend} at {size}: max abs {self.max_abs:.1e}, {self.psnr:.1f} dB"


def limit(precision: str) -> str:
    """What `Parity.passes` asks for, in words."""
    return f"at least {FP16_MIN_PSNR:g} dB" if precision == "fp16" else f"at most {FP32_MAX_ABS:g}"
