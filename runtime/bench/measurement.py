"""One model's figures."""

from dataclasses import asdict, dataclass
from typing import Any

from dvmsr.runtime.bench.probe import Probe, Shape
from dvmsr.runtime.bench.timing import Times


@dataclass(frozen=True)
class Measurement:
    """One model on one backend with one input shape."""

    name: str
    """The model as the user named it, with its backend if that was named."""
    model: str
    """The model's file."""
    backend: str
    precision: str
    shape: Shape
    """Batch, height and width of the input."""
    scale: int
    clock: str
    """`wall clock`, or `CUDA events` without the copies between host and GPU."""
    seconds: tuple[float, ...]
    """Of every round."""
    times: Times
    probe: Probe
    details: dict[str, Any]
    """What the backend adds, such as an engine's `build_seconds`."""

    @property
    def images_per_second(self) -> float:
        """At the median time."""
        return self.shape[0] / self.times.p50_ms * 1e3

    @property
    def megapixels_per_second(self) -> float:
        """Output pixels in millions, at the median time."""
        _, height, width = self.shape
        return self.images_per_second * height * width * self.scale**2 / 1e6

    @property
    def peak_bytes(self) -> int | None:
        """On the GPU for a backend with one, else of the process."""
        return self.probe.device_bytes or self.probe.peak_bytes

    def to_dict(self) -> dict[str, Any]:
        """All fields and rates as JSON-ready values."""
        return {
            **asdict(self),
            "images_per_second": self.images_per_second,
            "megapixels_per_second": self.megapixels_per_second,
        }
