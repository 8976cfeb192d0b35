"""Which files are videos, by their names, and in which containers results are written."""

from typing import Protocol

from dvmsr.errors import UsageError

WRITTEN = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's name of the container that each file extension of a result stands for."""
FALLBACK = ".mkv"
"""For the results of videos in other containers: it holds nearly everything."""
READ = (
    *WRITTEN,
    *(".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".mxf"),
)
"""File extensions of the videos that are read."""
DEMUXERS = "mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg,mxf"
"""FFmpeg's names of the containers that are read; a playlist, say, could name other files."""


class Named(Protocol):
    """A file's name, or a URL."""

    @property
    def suffix(self) -> str: ...


def is_video(path: Named) -> bool:
    """Whether the name is that of a video."""
    return path.suffix.lower() in READ


def result_suffix(path: Named, wanted: str | None = None) -> str:
    """The extension of a video's result.

    Args:
        wanted: an extension that was asked for; it counts if it is one of `WRITTEN`.
    """
    if wanted in WRITTEN:
        return wanted
    return path.suffix if path.suffix.lower() in WRITTEN else FALLBACK


def check_container(path: Named) -> str:
    """FFmpeg's name of the container that a result's name stands for.

    Raises:
        UsageError: if it stands for none.
    """
    try:
        return WRITTEN[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"{path} must end in one of {', '.join(WRITTEN)} for a video") from None
