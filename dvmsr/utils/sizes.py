"""Sizes as the command lines take them."""

import re

from dvmsr.errors import UsageError

_NUMBER = "([1-9][0-9]{0,4})"
_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


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


def parse_bytes(option: str, text: str) -> int:
    """`2G`, `1.5GiB` or `800 MB` -> bytes; units are powers of 1024.

    Raises:
        UsageError: for anything else.
    """
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    exponent = _UNITS.get(number[-1:])
    try:
        size = float(number[:-1] if exponent else number) * 2 ** (exponent or 0)
        if size < 1:
            raise ValueError
        return int(size)
    except (ValueError, OverflowError):  # infinite ones, too
        raise UsageError(
            f"{option} takes an amount of memory such as 2G or 800M, not {_short(text)}"
        ) from None


def in_words(size: float) -> str:
    """Bytes as `parse_bytes` takes them, to a tenth: `1.5 GiB`; none where it is negative."""
    exponent = max((e for e in _UNITS.values() if size >= 2**e), default=_UNITS["K"])
    unit = next(unit for unit, e in _UNITS.items() if e == exponent)
    return f"{max(size, 0) / 2**exponent:.1f} {unit}iB"


def _parse(option: str, text: str, meaning: str, example: str) -> list[int]:
    match = re.fullmatch("x".join([_NUMBER] * len(meaning.split("x"))), text.lower())
    if not match:
        raise UsageError(
            f"{option} takes {meaning}, positive numbers of up to 5 digits, such as {example}, "
            f"not {_short(text)}"
        )
    return [int(number) for number in match.groups()]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
