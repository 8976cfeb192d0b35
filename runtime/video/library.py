"""PyAV, which reads and writes videos with FFmpeg's libraries: the extra `video`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from dvmsr.errors import DvmsrError, MissingComponentError


@cache
def import_av() -> Any:
    """PyAV.

    Raises:
        MissingComponentError: if it is missing, does not load or is too old.
    """
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its settings otherwise
    try:
        import av
    except ImportError as error:
        raise MissingComponentError(
            f"videos need PyAV ({error}): pip install 'dvmsr[video]'"
        ) from None
    if not hasattr(av.VideoStream, "set_display_matrix"):
        raise MissingComponentError(
            f"PyAV {av.__version__} is too old for videos: pip install -U 'dvmsr[video]'"
        )
    return av


def url(path: Path) -> str:
    """A file's name as FFmpeg takes it: without this, `a:b.mp4` would be of a protocol `a`."""
    return f"file:{path}"


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turns what FFmpeg makes of a bad file in the block into a `DvmsrError`."""
    errors = import_av().error
    try:
        yield
    except (errors.FFmpegError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DvmsrError(
            f"{path} is no video that can be read, or damaged ({reason}); get a complete copy of it"
        ) from None
