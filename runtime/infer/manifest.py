"""A record of what became of every image: a line of JSON each, written as it is known."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.storage import places
from dvmsr.utils.json_text import parse
from dvmsr.utils.locks import hold
from dvmsr.utils.paths import check_input, exists, is_dir, unreadable

STATE = ("bytes", "modified")
_START = b'{"input": '
"""Of every line, by which one that is cut off is told from another file's."""
BEGUN, DONE, FAILED, SKIPPED = "begun", "done", "failed", "skipped"


class Manifest:
    """Lines are added at the end of the file; a context manager.

    A line has at least `input` and `status` (`begun`, then `done` or `failed`), `output` unless it
    failed, and of inputs that exist `bytes` and `modified` (see `places.state`), by which one that
    has changed is known.

    Args:
        path: the file.
        resume: whether to go on with one, or make one; otherwise it must be new.

    Raises:
        UsageError: if it exists and is not to be gone on with or no regular file, or its folder is
            missing.
        DvmsrError: if it cannot be read or written, is no manifest, or another process has it.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.done: dict[str, dict[str, Any]] = {}
        """The latest line of each input that was enlarged."""
        self.begun: set[str] = set()
        """Results that were written, or were about to be when a session ended."""
        if exists(path) and not resume:
            raise UsageError(f"{path} exists; go on with it by --resume or choose another name")
        if exists(path):
            check_input(path)
        elif not is_dir(path.parent):
            raise UsageError(f"{path.parent} is not a folder; create it or choose another")
        try:
            self.file: IO[bytes] = path.open("r+b" if exists(path) else "x+b")
        except OSError as error:
            raise DvmsrError(
                f"{path} cannot be written ({error.strerror}); choose another place"
            ) from None
        try:
            hold(self.file, DvmsrError(f"{path} is in use by another process; wait for its end"))
            self._read()
        except BaseException:
            self.file.close()
            raise

    def _read(self) -> None:
        """Take in the lines that are whole; what a crash may have cut off is taken away."""
        try:
            data = self.file.read()
        except OSError as error:
            raise unreadable(self.path, error) from None
        whole = data[: data.rfind(b"\n") + 1]
        cut_off = data[len(whole) :]
        if cut_off[: len(_START)] != _START[: len(cut_off)]:
            raise self._foreign(whole.count(b"\n") + 1)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = parse(line)
                name, status = row["input"], row["status"]
                output = row["output"] if status in (BEGUN, DONE) else None
                if not isinstance(name, str) or not isinstance(output, str | None):
                    raise TypeError
            except (ValueError, TypeError, LookupError):
                raise self._foreign(number) from None
            if output is not None:
                self.begun.add(output)
            if status == DONE:
                self.done[name] = row
            elif status == FAILED:
                self.done.pop(name, None)
        self.file.truncate(len(whole))
        self.file.seek(len(whole))

    def _foreign(self, number: int) -> DvmsrError:
        return DvmsrError(
            f"{self.path} is not a manifest of dvmsr-infer (line {number}); name another"
        )

    def has_done(self, job: Job) -> bool:
        """Whether the image was enlarged before, has not changed since, and its result is there."""
        row = self.done.get(str(job.source))
        return (
            row is not None
            and row["output"] == str(job.target)
            and {name: row[name] for name in STATE if name in row} == places.state(job.source)
            and places.exists(job.target)
        )

    def add(self, row: dict[str, Any]) -> None:
        """Write a line.

        Raises:
            DvmsrError: if that fails, for want of space, say.
        """
        try:
            state = places.state(places.place(row["input"]))
            self.file.write(json.dumps({**row, **state}).encode() + b"\n")
            self.file.flush()
        except OSError as error:
            raise DvmsrError(
                f"{self.path} cannot be written ({error.strerror}); make room, then --resume"
            ) from None

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what there was no room for was told by `add`
            self.file.close()
