"""Sizes of inputs as the command lines take them."""

from __future__ import annotations

import re

from dvmsr.errors import UsageError

_NUMBER = "([1-9][0-9]{0,4})"


def parse_size(option: str, text: str) -> tuple[int, int]:
    """`270x480` -> height 270, width 480.

    Args:
        option: its name, for the message.

    Raises:
        UsageError: for anything but two positive integers of up to 5 digits.
    """
    height, width = _parse(option, text, "HEIGHTxWIDTH", "270x480")
    return height, width


def parse_shape(option: str, text: str) -> tuple[int, int, int]:
    """`1x270x480` -> batch 1, height 270, width 480; as `parse_size`."""
    batch, height, width = _parse(option, text, "BATCHxHEIGHTxWIDTH", "1x270x480")
    return batch, height, width


def _parse(option: str, text: str, meaning: str, example: str) -> list[int]:
    match = re.fullmatch("x".join([_NUMBER] * len(meaning.split("x"))), text.lower())
    if not match:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise UsageError(
            f"{option} takes {meaning}, positive numbers of up to 5 digits, such as {example}, "
            f"not {shown!r}"
        )
    return [int(number) for number in match.groups()]
