"""The folder beside a result in which finished segments wait, so that a command can go on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.utils.atomic import replacing, write_atomically
from dvmsr.utils.console import notice
from dvmsr.utils.json_text import parse
from dvmsr.utils.locks import hold
from dvmsr.utils.paths import exists

SUFFIX = ".parts"
_SETTINGS = "settings.json"


@dataclass
class Segment:
    """Frames that are encoded."""

    path: Path
    pts: list[int]
    """When each is shown, in the order in which they are."""
    end: int
    """When the last one ends."""


def folder_of(target: Path) -> Path:
    """Where the parts of a result lie: `clip_x4.mp4.parts`."""
    return target.with_name(target.name + SUFFIX)


def refuse_unasked(target: Path, resume: bool) -> None:
    """Whether work may begin.

    Raises:
        UsageError: if parts of the result are there and are not to be gone on with.
    """
    folder = folder_of(target)
    if exists(folder) and not resume:
        raise UsageError(
            f"{folder} holds the beginning of {target}; go on with --resume or delete the folder"
        )


class Parts:
    """The segments of one result; a context manager, which only one process at a time can enter.

    Each is a file of packets and, written when that is complete, a JSON file of its times and of
    the SHA-256 of both. One that does not agree with that, and those after it, do not count, which
    is told on stderr. At the end of the block the folder is removed if no segment is in it.

    Args:
        target: the result.
        settings: JSON-ready; everything that a segment depends on.

    Raises:
        UsageError: if the folder was begun with other settings, or is not of this kind.
        DvmsrError: if it cannot be made or read, or another process works in it.
    """

    def __init__(self, target: Path, settings: dict[str, Any]) -> None:
        self.folder = folder_of(target)
        self.segments: list[Segment] = []
        """Those that are finished, in order."""
        try:
            self._lock = self._entered(settings)
            try:
                busy = f"{self.folder} is in use by another process; wait for its end"
                hold(self._lock, DvmsrError(busy))
                self._read(json.loads(json.dumps(settings)))
            except BaseException:
                self._lock.close()
                raise
        except OSError as error:
            raise DvmsrError(
                f"{self.folder} cannot be used ({error.strerror}); make room or choose another "
                "place"
            ) from None
        except (ValueError, LookupError, TypeError):
            raise UsageError(
                f"{self.folder} holds something else than parts of a video; delete or rename it"
            ) from None

    def _entered(self, settings: dict[str, Any]) -> IO[bytes]:
        """The settings' file, which is made if the folder is new."""
        path = self.folder / _SETTINGS
        self.folder.mkdir(exist_ok=True)
        others = [file for file in self.folder.iterdir() if file.suffix != ".tmp"]
        if not others:
            write_atomically(path, json.dumps(settings, indent=2).encode(), overwrite=False)
        elif path not in others:
            raise ValueError
        return path.open("rb+")

    def _read(self, settings: dict[str, Any]) -> None:
        before = parse((self.folder / _SETTINGS).read_bytes())
        changed = [name for name, value in settings.items() if before[name] != value]
        if changed:
            raise UsageError(
                f"{self.folder} was begun with another {', '.join(changed)}; take the same, or "
                "delete the folder"
            )
        for left in self.folder.glob(".dvmsr-*.tmp"):
            left.unlink()
        while (times := self._path(len(self.segments), "json")).exists():
            segment = _finished(self._path(len(self.segments), "segment"), times)
            if segment is None:
                notice(f"warning: {times.with_suffix('.segment')} is damaged; it is made again")
                break
            self.segments.append(segment)

    @property
    def frames(self) -> int:
        """Frames in all segments."""
        return sum(len(segment.pts) for segment in self.segments)

    @contextmanager
    def adding(self) -> Iterator[Segment]:
        """A segment to be written in the block; it counts from the end of that on.

        Raises:
            DvmsrError: if it cannot be written.
        """
        number = len(self.segments)
        with replacing(self._path(number, "segment"), overwrite=True) as temporary:
            segment = Segment(temporary, [], 0)
            yield segment
        done = Segment(self._path(number, "segment"), segment.pts, segment.end)
        times = {"pts": done.pts, "end": done.end, "sha256": _digest(done)}
        write_atomically(self._path(number, "json"), json.dumps(times).encode(), True)
        self.segments.append(done)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{number:06}.{suffix}"

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.segments:
            self.remove()
        self._lock.close()


def _finished(file: Path, times: Path) -> Segment | None:
    """The segment of two files; None if they are not as they were written."""
    try:
        known = parse(times.read_bytes())
        segment = Segment(file, known["pts"], known["end"])
        return segment if known["sha256"] == _digest(segment) else None
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _digest(segment: Segment) -> str:
    """SHA-256 of times and content."""
    digest = hashlib.sha256(json.dumps([segment.pts, segment.end]).encode())
    with segment.path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
