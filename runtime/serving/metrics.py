"""What an operator watches, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import generate_latest as _latest

from dvmsr.runtime.serving.enlarging import Enlarged

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)


class Metrics:
    """Of one service.

    Args:
        at_work: how many pictures it is at.
        places: how many it may be at.
    """

    def __init__(self, at_work: Callable[[], int], places: int) -> None:
        self._registry = own = CollectorRegistry()
        self._answers = Counter("dvmsr_answers", "Answers to /enlarge", ["status"], registry=own)
        self._pixels = Counter("dvmsr_input_pixels", "Pixels enlarged", ["model"], registry=own)
        self._seconds = Histogram(
            "dvmsr_network_seconds",
            "Of the network, for one picture",
            ["model"],
            buckets=_SECONDS,
            registry=own,
        )
        Gauge("dvmsr_pictures", "Pictures at work", registry=own).set_function(at_work)
        Gauge("dvmsr_places", "Pictures that may be at work", registry=own).set(places)
        ProcessCollector(registry=own)

    def answered(self, status: int) -> None:
        """Count an answer to `/enlarge`."""
        self._answers.labels(str(status)).inc()

    def enlarged(self, model: str, picture: Enlarged) -> None:
        """Count a picture."""
        self._pixels.labels(model).inc(picture.pixels)
        self._seconds.labels(model).observe(picture.seconds)

    def text(self) -> bytes:
        """All of it."""
        return _latest(self._registry)
