"""What a comparison with PyTorch says; needs neither torch nor onnx."""

from dataclasses import dataclass

from dvmsr.runtime.parity.limits import default_limits


@dataclass(frozen=True)
class Parity:
    """How far one backend's output is from FP32 PyTorch's for one input."""

    backend: str
    """`native` (the operators' C++ kernels) or `portable` (their bodies in ONNX)."""
    shape: tuple[int, int, int]
    """Batch, height and width of the input."""
    max_abs: float
    psnr: float
    """In dB, peak 1; infinite for equal outputs."""

    def passes(self, precision: str) -> bool:
        """Whether the difference is within the limit of the file's precision; a NaN is not."""
        return not default_limits(precision).broken(self.max_abs, self.psnr)

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"{self.backend} at {size}: max abs {self.max_abs:.1e}, {self.psnr:.1f} dB"
