"""One model's figures."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

from dvmsr.runtime.bench.probe import Probe, Shape
from dvmsr.runtime.bench.timing import Times


@dataclass(frozen=True)
class Timed(ABC):
    """What is measured of every model."""

    name: str
    """The model as the user named it, with its backend if that was named."""
    model: str
    """The model's file, or its factory."""
    backend: str
    precision: str
    clock: str
    """`wall clock`, or `CUDA events` without the copies between host and GPU."""
    seconds: tuple[float, ...]
    """Of every round."""
    times: Times
    probe: Probe
    details: dict[str, Any]
    """What the backend adds, such as an engine's `build_seconds`."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it was run on, in words; equal for all that took turns."""

    @property
    @abstractmethod
    def rates(self) -> dict[str, float]:
        """Per second, at the median time, by what a table calls them."""

    @property
    def peak_bytes(self) -> int | None:
        """On the GPU for a backend with one, else of the process."""
        return self.probe.device_bytes or self.probe.peak_bytes

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Measurement(Timed):
    """Of DVMSR, with one input shape."""

    shape: Shape
    """Batch, height and width of the input."""
    scale: int

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
    def title(self) -> str:
        batch, height, width = self.shape
        return f"{height}x{width} pixels, batch {batch}"

    @property
    def rates(self) -> dict[str, float]:
        return {"images/s": self.images_per_second, "out MP/s": self.megapixels_per_second}

    def to_dict(self) -> dict[str, Any]:
        """All fields and rates as JSON-ready values."""
        return {
            **asdict(self),
            "images_per_second": self.images_per_second,
            "megapixels_per_second": self.megapixels_per_second,
        }


@dataclass(frozen=True)
class ArrayMeasurement(Timed):
    """Of a network of any kind, with given arrays."""

    inputs: dict[str, str]
    """Type and sizes of each, by the names of the first model's inputs."""

    @property
    def calls_per_second(self) -> float:
        """At the median time."""
        return 1e3 / self.times.p50_ms

    @property
    def title(self) -> str:
        return ", ".join(f"{name} {what}" for name, what in self.inputs.items())

    @property
    def rates(self) -> dict[str, float]:
        return {"calls/s": self.calls_per_second}

    def to_dict(self) -> dict[str, Any]:
        """All fields and the rate as JSON-ready values."""
        return {**asdict(self), "calls_per_second": self.calls_per_second}
