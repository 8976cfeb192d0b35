"""What became of pictures, and how that is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dvmsr.runtime.infer.manifest import BEGUN, DONE, FAILED, SKIPPED

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler


@dataclass(frozen=True)
class Result:
    """One image that was enlarged; sizes are width and height in pixels."""

    input: str
    status: str
    output: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    seconds: float
    """For the network alone or, by rows, with reading and writing."""
    model: str
    backend: str
    precision: str
    strip: int | None
    """Rows that were computed at once; None for all."""
    frames: int = 1
    """Or pages."""

    @property
    def pixels(self) -> int:
        return self.input_size[0] * self.input_size[1] * self.frames

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class VideoResult(Result):
    """One video that was enlarged."""

    resumed_frames: int = 0
    """Of the frames, those that an earlier session made."""

    @property
    def pixels(self) -> int:
        return self.input_size[0] * self.input_size[1] * (self.frames - self.resumed_frames)


@dataclass(frozen=True)
class Failure:
    """One image that was not."""

    input: str
    error: str
    """One sentence."""
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        """All but the exit code as JSON-ready values."""
        return {"input": self.input, "status": FAILED, "error": self.error}


@dataclass(frozen=True)
class Skipped:
    """One image whose result is there already."""

    input: str
    output: str

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return {"input": self.input, "status": SKIPPED, "output": self.output}


@dataclass(frozen=True)
class Begun:
    """One image whose turn has come; its result, if it is there, is from this run."""

    input: str
    output: str

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return {"input": self.input, "status": BEGUN, "output": self.output}


Outcome = Result | Failure | Skipped


def result_of(
    upscaler: Upscaler,
    source: str,
    target: str,
    size: tuple[int, int],
    enlarged_size: tuple[int, int],
    seconds: float,
    strip: int | None = None,
    frames: int = 1,
) -> Result:
    """What is told of an image; sizes are width and height.

    Args:
        strip: rows that were computed at once; None for what an image in memory gets.
    """
    if strip is None:
        rows = upscaler.rows_at_once(size[1], size[0])
        strip = None if rows == size[1] else rows
    return Result(
        input=source,
        status=DONE,
        output=target,
        input_size=size,
        output_size=enlarged_size,
        seconds=round(seconds, 4),
        model=upscaler.model,
        backend=upscaler.backend,
        precision=upscaler.precision,
        strip=strip,
        frames=frames,
    )


def describe(result: Result) -> str:
    """One line about a result."""
    (w, h), (W, H) = result.input_size, result.output_size
    frames = f", {result.frames} frames" if result.frames > 1 else ""
    seconds = f"{result.seconds:.2f} s"
    return f"{result.output}: {w}x{h} -> {W}x{H}{frames} in {seconds}, {speed([result])}"


def speed(results: Sequence[Result]) -> str:
    """Input pixels per second of the network."""
    seconds = sum(result.seconds for result in results)
    rate = sum(result.pixels for result in results) / seconds if seconds else 0
    return f"{rate:,.0f} pixels/s"
