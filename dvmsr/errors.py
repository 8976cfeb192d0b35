"""Failures that a user can act on, each with the exit code its command ends with.

Every message is one sentence that names the file or setting and says what to do. The command
lines print it to stderr without a traceback (`dvmsr.utils.cli.app`); anything that is not a
`DvmsrError` is a bug and keeps its traceback.
"""

import signal
from typing import TypeVar

SIGNALLED = 128
"""Plus the number of a signal that ends the process: its exit code."""
INTERRUPTED = SIGNALLED + signal.SIGINT


class DvmsrError(Exception):
    """A run-time failure (exit code 1): unreadable input, full disk, a broken file."""

    exit_code = 1


class ResourceError(DvmsrError):
    """The system gave no memory, no room or no access to a file: not the input's fault (exit
    code 1)."""


class UsageError(DvmsrError):
    """The command was asked for something that makes no sense (exit code 2)."""

    exit_code = 2


class ParityError(DvmsrError):
    """Two implementations of one network disagree by more than allowed (exit code 3)."""

    exit_code = 3


class MissingComponentError(DvmsrError):
    """A GPU, library or plugin is not on this machine (exit code 4)."""

    exit_code = 4


class IncompatibleModelError(DvmsrError):
    """A model, checkpoint or engine that this version cannot use (exit code 5)."""

    exit_code = 5


def summary(error: BaseException) -> str:
    """The kind and first line of an exception of other people's code."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


EXPECTED = (DvmsrError, OSError, MemoryError)
"""What work on one of many files may fail with; anything else is a bug."""


def explain(error: DvmsrError | OSError | MemoryError, name: str) -> DvmsrError:
    """One of `EXPECTED` as a sentence.

    Args:
        name: of the file that was worked on.
    """
    if isinstance(error, DvmsrError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError(f"{name} needs more memory than there is; make it smaller")
    return ResourceError(
        f"{error.filename or name} cannot be used ({error.strerror}); check the path"
    )


Error = TypeVar("Error", bound=BaseException)


def bare(error: Error) -> Error:
    """It alone: its traceback, and errors that it followed, keep alive all that the code which
    raised them had in hand, pixels and open files."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
