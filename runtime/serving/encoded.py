"""A picture's file in memory, enlarged as one on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvmsr.runtime.infer.steps import silent
from dvmsr.runtime.serving.enlarging import PICTURE, Wish, enlarge, refused
from dvmsr.utils import signals

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler


@dataclass(frozen=True)
class Encoded:
    """A result."""

    data: bytes
    """The file's content."""
    warnings: tuple[str, ...]
    """What of the picture is not in it, or not as it was: a sentence each."""


def enlarge_encoded(upscaler: Upscaler, data: bytes, wish: Wish, most_pixels: int) -> Encoded:
    """Enlarge a picture whose file is in memory.

    Not for two threads at once: Python's warnings are of the process.

    Args:
        data: the content of a file of one of `formats.FORMATS`.
        most_pixels: of all frames together; what has more is refused before it is decoded.

    Raises:
        Refusal: if that cannot be done.
    """
    with refused({}, 503), signals.temporary_folder() as folder:
        source = folder / "picture"
        with refused({str(source): PICTURE}, 503):
            source.write_bytes(data)
        made = enlarge(upscaler, source, wish, most_pixels, silent)
        return Encoded(made.path.read_bytes(), made.warnings)
