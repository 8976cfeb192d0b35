"""A picture's file in memory, enlarged as `dvmsr-infer` enlarges one on the disk."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.images.codec import FORMATS
from dvmsr.runtime.images.extent import extent
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.options import Options
from dvmsr.runtime.infer.staging import Copies
from dvmsr.runtime.infer.steps import Steps, Work
from dvmsr.runtime.storage.places import Memory
from dvmsr.utils.console import warnings_to

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler

PICTURE, RESULT = "the picture", "the result"
"""What messages call them."""


@dataclass(frozen=True)
class Encoded:
    """A result."""

    data: bytes
    """The file's content."""
    warnings: tuple[str, ...]
    """What of the picture is not in it, or not as it was: a sentence each."""


def enlarge_encoded(
    upscaler: Upscaler,
    data: bytes,
    extension: str | None = None,
    quality: int | None = None,
    most_pixels: int | None = None,
) -> Encoded:
    """Enlarge a picture whose file is in memory.

    Not for two threads at once: Python's warnings are of the process.

    Args:
        data: the content of a file of one of `codec.FORMATS`.
        extension: that of the result's format, with its dot; None for the picture's own.
        quality: from 1 to 100, of JPEG, WebP and AVIF; None for that of the picture.
        most_pixels: of all frames together; what has more is refused before it is decoded.

    Raises:
        DvmsrError: if it is damaged, too large, or the format cannot hold the result.
        ResourceError: if there is no memory or no room for temporary files.
    """
    if most_pixels is not None:
        check_pixels(data, most_pixels)
    job = Job(Memory(PICTURE, data), result := Memory(RESULT, suffix=extension or ""))
    work = Work(Options(quality=quality), replaces=lambda job: True)
    told: list[str] = []
    with (
        Copies(Steps(upscaler, work)) as steps,
        warnings_to(lambda text: told.append(steps.renamed(text))),
    ):
        steps.save(job, steps.work(job, steps.load(job)))
    return Encoded(result.data, tuple(told))


def check_format(name: str) -> str:
    """The extension of a picture's format, with its dot.

    Args:
        name: such as `png`.

    Raises:
        UsageError: if there is no such format.
    """
    extension = f".{name.lower().removeprefix('.')}"
    if extension not in FORMATS:
        known = ", ".join(known[1:] for known in FORMATS)
        raise UsageError(f"format must be one of {known}, not {name!r}")
    return extension


def check_pixels(data: bytes, most: int) -> None:
    """Whether all frames of a picture together have no more than so many pixels; none is decoded.

    Raises:
        DvmsrError: if they have more, or it is no picture.
    """
    pixels = extent(io.BytesIO(data), PICTURE).pixels
    if pixels > most:
        raise DvmsrError(
            f"{PICTURE} has {pixels:,} pixels, and at most {most:,} are taken here; make it "
            "smaller or cut it into parts"
        )
