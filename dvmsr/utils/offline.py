"""Whether anything may be fetched."""

import os

VARIABLE = "DVMSR_OFFLINE"
"""The environment variable that forbids it, unless it is empty or 0."""


def is_asked() -> bool:
    """Whether nothing may be fetched."""
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def ask() -> None:
    """From now on nothing may be, by this process or those that it starts."""
    os.environ[VARIABLE] = "1"
