"""Failures that a user can act on, each with the exit code its command ends with.

Every message is one sentence that names the file or setting and says what to do. The command
lines print it to stderr without a traceback (`dvmsr.cli_support`); anything that is not a
`DvmsrError` is a bug and keeps its traceback.
"""


class DvmsrError(Exception):
    """A run-time failure (exit code 1): unreadable input, full disk, a broken file."""

    exit_code = 1


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
