"""One picture, from file to file, by the steps of `dvmsr-infer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from dvmsr.errors import EXPECTED
from dvmsr.runtime.images.extent import extent
from dvmsr.runtime.images.formats import FORMATS, LOSSY
from dvmsr.runtime.infer.job import FileJob
from dvmsr.runtime.infer.options import Options
from dvmsr.runtime.infer.steps import Steps, Work
from dvmsr.runtime.serving.refusals import Refusal, refusal_of, told
from dvmsr.utils.console import warnings_to

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler

PICTURE, RESULT = "the picture", "the result"
"""What messages call them."""
_MODEL = "the model"


@dataclass(frozen=True)
class Wish:
    """How a picture is to be enlarged."""

    model: str
    extension: str | None = None
    """Of the result's format, with its dot; None for the picture's."""
    quality: int | None = None
    """Of JPEG, WebP and AVIF, from 1 to 100; None for the picture's."""
    to_srgb: bool = False
    """Whether colours with another profile are converted to sRGB."""


@dataclass(frozen=True)
class Enlarged:
    """What became of a picture; sizes are width and height in pixels."""

    path: Path
    media_type: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    pixels: int
    """Of all frames of the input."""
    seconds: float
    """For the network."""
    warnings: tuple[str, ...]


def enlarge(
    upscaler: Upscaler,
    source: Path,
    wish: Wish,
    most_pixels: int,
    show: Callable[[int, int], None],
) -> Enlarged:
    """Read a picture, enlarge it, and write the result beside it.

    Args:
        show: as of `Work.show_rows`.

    Raises:
        Refusal: if that cannot be done.
    """
    format = _check(source, most_pixels)
    own = next(extension for extension, name in FORMATS.items() if name == format)
    target = source.with_name(f"result{wish.extension or own}")
    if wish.quality is not None and FORMATS[target.suffix] not in LOSSY:
        raise Refusal(
            422, f"quality is of JPEG, WebP and AVIF, not of {FORMATS[target.suffix]}; leave it out"
        )
    names = {str(target): RESULT, str(source): PICTURE, upscaler.model: _MODEL}
    steps = Steps(
        upscaler,
        Work(
            Options(quality=wish.quality, to_srgb=wish.to_srgb),
            lambda job: False,
            show_rows=show,
        ),
    )
    job = FileJob(source, target)
    said: list[str] = []
    with warnings_to(lambda text: said.append(told(text, names))):
        with refused(names, 422):
            loaded = steps.load(job)
        with refused(names, 500):
            made = steps.work(job, loaded)
        with refused(names, 422):
            result = steps.save(job, made)
    return Enlarged(
        target,
        Image.MIME[FORMATS[target.suffix]],
        result.input_size,
        result.output_size,
        result.pixels,
        result.seconds,
        tuple(said),
    )


def _check(source: Path, most_pixels: int) -> str:
    """The format of a picture, of which nothing is decoded.

    Raises:
        Refusal: if it is none, or has too many pixels.
    """
    with refused({str(source): PICTURE}, 422), source.open("rb") as file:
        format, pixels = extent(file, PICTURE)
    if pixels > most_pixels:
        raise Refusal(
            413,
            f"the picture has {pixels:,} pixels, and the service takes at most {most_pixels:,}; "
            "make it smaller or cut it into parts",
        )
    return format


@contextmanager
def refused(names: dict[str, str], usual: int) -> Iterator[None]:
    """A failure in the block becomes a refusal.

    Args:
        names, usual: as of `refusal_of`.

    Raises:
        Refusal: if there was one.
    """
    try:
        yield
    except EXPECTED as error:
        raise refusal_of(error, names, usual) from None
