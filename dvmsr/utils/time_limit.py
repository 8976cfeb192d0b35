"""How long one run of a file may take that may have no end, such as an ONNX file with a loop."""

from pathlib import Path

from dvmsr.errors import DvmsrError

DEFAULT = 600.0
"""Seconds, of `--time-limit`."""


def exceeded(path: Path, seconds: float) -> DvmsrError:
    """What to raise of a file whose run took longer."""
    return DvmsrError(
        f"{path} was ended after {seconds:g} seconds in one run, the limit of --time-limit "
        f"({DEFAULT:g} by default); allow more if the file is known to come to an end"
    )
