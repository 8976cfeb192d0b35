"""Options that take several compute capabilities: `--compute-capability 8.6 8.9 12.0`."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

_OPTIONS = ("--compute-capability", "--arch")
_CAPABILITY = re.compile(r"\d{1,2}\.?\d(-real|-virtual)?")


def spread(arguments: list[str]) -> list[str]:
    """The option repeated before each of its values, as typer wants it."""
    result: list[str] = []
    option = ""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before in _OPTIONS:
            option = before
        elif option and _CAPABILITY.fullmatch(argument):
            result.append(option)
        else:
            option = ""
        result.append(argument)
    return result


class SeveralCapabilities(TyperCommand):
    """A command with such an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))
