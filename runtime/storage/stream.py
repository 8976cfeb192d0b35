"""Standard input and output as places of pictures."""

from __future__ import annotations

import io
import os
import select
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.utils import signals

STREAM = "-"


@dataclass(frozen=True)
class Stream:
    """Standard input or, for a result, standard output."""

    suffix: str = ""
    """Of a result, with its dot, if a format was asked for."""

    name = STREAM

    def __str__(self) -> str:
        return STREAM

    def is_dir(self) -> bool:
        return False

    def exists(self) -> bool:
        return False

    def state(self) -> dict[str, int | str]:
        return {}

    def download(self, copy: Path) -> None:
        """Read to the end, into a file here.

        Raises:
            UsageError: if it is closed, or a terminal.
            DvmsrError: if that fails.
        """
        if sys.stdin is None:
            raise UsageError("standard input is closed; name an image or send one there")
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal; name an image or send one there")
        source: Any = sys.stdin.buffer
        try:
            with copy.open("wb") as file:
                while data := _more_of(source):
                    file.write(data)
        except OSError as error:
            raise DvmsrError(
                f"standard input cannot be kept ({error.strerror}); make room, or set TMPDIR to a "
                "folder that has"
            ) from None

    def check_target(self, overwrite: bool) -> None:
        """
        Raises:
            UsageError: if it is closed, or a terminal.
        """
        if sys.stdout is None:
            raise UsageError("standard output is closed; name a file with -o or send it to one")
        if sys.stdout.isatty():
            raise UsageError("standard output is a terminal; name a file with -o or send it to one")

    def upload(self, copy: Path, overwrite: bool) -> None:
        """Write the content of a file.

        Raises:
            DvmsrError: if that fails.
        """
        try:
            with copy.open("rb") as data:
                shutil.copyfileobj(data, sys.stdout.buffer)
            sys.stdout.flush()
        except OSError as error:
            # It is flushed again at exit.
            if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
            raise DvmsrError(
                f"standard output takes no more ({error.strerror}); send it to what reads it to "
                "its end, or name a file with -o"
            ) from None


def _more_of(source: Any) -> bytes:
    """What can be read next; nothing at the end."""
    try:
        signals.wait(partial(_has_more, source))
        return bytes(source.read1())
    except OSError as error:
        raise DvmsrError(
            f"standard input cannot be read ({error.strerror}); send an image there, or name one"
        ) from None


def _has_more(source: Any, seconds: float) -> bool:
    """Whether something can be read, or the end is there, after so many seconds at most."""
    try:
        return bool(select.select([source], [], [], seconds)[0])
    except io.UnsupportedOperation:  # it is no stream of the system's
        return True
