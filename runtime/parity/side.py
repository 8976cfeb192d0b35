"""The sides of a comparison."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Side:
    """One of the two networks."""

    model: str
    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.model} ({self.backend}, {self.precision})"
