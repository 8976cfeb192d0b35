"""What a client is told that gets no picture: a status and one sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping

from dvmsr.errors import DvmsrError, IncompatibleModelError, ResourceError, explain
from dvmsr.runtime.images.decode import TooManyPixels, UnknownFormat
from dvmsr.runtime.memory import NotEnoughMemory

_FOR_A_TERMINAL = re.compile(r"(?<!\w)-{1,2}[a-z]|\bpip install|\bdvmsr-\w|\bexport it\b")
_STATUS: dict[type[BaseException], int] = {
    TooManyPixels: 413,
    NotEnoughMemory: 413,
    UnknownFormat: 415,
    IncompatibleModelError: 422,
    ResourceError: 503,
}
BUSY_SECONDS = 5
"""To wait where nothing tells how long."""


class Refusal(Exception):
    """There is no picture.

    Args:
        status: of HTTP.
        sentence: why, and what helps.
        retry_after: seconds after which it may be tried again; None where that is no use.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.retry_after = status, sentence, retry_after

    def __reduce__(self) -> tuple[type[Refusal], tuple[int, str, int | None]]:
        return Refusal, (self.status, self.sentence, self.retry_after)  # to be pickled


def ending() -> Refusal:
    """For all that a service has not done when it is told to end."""
    return Refusal(503, "the service is ending; try again when it is back", BUSY_SECONDS)


def refusal_of(
    error: DvmsrError | OSError | MemoryError, names: Mapping[str, str], usual: int
) -> Refusal:
    """What is told of a failure.

    Args:
        names: as of `told`.
        usual: the status where the kind of failure does not tell it.
    """
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Refusal(503, "the service has no room for the picture; try later", BUSY_SECONDS)
    if isinstance(error, MemoryError):
        return Refusal(503, "the service has no memory for the picture; try later", BUSY_SECONDS)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), usual)
    again = BUSY_SECONDS if status == 503 else None
    return Refusal(status, told(str(explain(error, "the picture")), names), again)


def told(text: str, names: Mapping[str, str]) -> str:
    """A message as it makes sense to who is not at the terminal of the service: without the remedy
    after its last semicolon, if that is a command or an option.

    Args:
        names: of files, and how the client knows them.
    """
    for file, name in names.items():
        text = text.replace(file, name)
    text = text.removesuffix(" with -o")
    problem, semicolon, remedy = text.rpartition("; ")
    return problem if semicolon and _FOR_A_TERMINAL.search(remedy) else text
