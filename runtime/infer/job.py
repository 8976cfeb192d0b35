"""One picture to read and one to write."""

from dataclasses import dataclass
from pathlib import Path

from dvmsr.runtime.storage.places import Place


@dataclass(frozen=True)
class Job:
    """One image to read and one to write."""

    source: Place
    target: Place


@dataclass(frozen=True)
class FileJob(Job):
    """One whose image and result are files on this machine."""

    source: Path
    target: Path
